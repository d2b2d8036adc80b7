"""What a broker asks of its disk: one sync for each answer that has a line, and none for the others."""

import asyncio
import re
import shutil
import signal
from pathlib import Path

import pytest

from strongroom.host.release import BrokerSession
from strongroom.host.run import spawn
from tests.fakes.broker import URI, VOLUME
from tests.integration.test_broker_house import Made, collect, made, obtain

__all__ = ["made"]  # the fixture

EXCHANGES = 8


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")
def test_a_handshake_is_one_sync_and_a_resource_another(made: Made, tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    with made.serving("--rate", "100000", "--handshakes", "1000") as broker:
        obtain(broker)
        words = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,msync", "-o", str(counts), "-p"]
        with spawn([*words, str(broker.child.pid)]) as tracer:
            _attached(broker.child.pid)

            async def exchange() -> None:
                async with BrokerSession(
                    url=broker.url, pin=broker.pin, tee="snp", collect=collect, deadline_s=60
                ) as session:
                    for _ in range(2):
                        with await session.get(URI) as secret:
                            assert secret.reveal() == VOLUME.pack()

            for _ in range(EXCHANGES):
                asyncio.run(exchange())
            tracer.signal(signal.SIGINT)
            tracer.wait(20)
        broker.stop()
    synced = re.findall(r"(?:fsync|fdatasync|msync)\(", counts.read_text())
    assert len(synced) == 3 * EXCHANGES  # attest, and two resources


def _attached(pid: int) -> None:
    for _ in range(2000):
        found = re.search(r"TracerPid:\t(\d+)", Path(f"/proc/{pid}/status").read_text())
        tasks = [
            Path(f"/proc/{pid}/task/{task.name}/status").read_text()
            for task in Path(f"/proc/{pid}/task").iterdir()
        ]
        if found and all("TracerPid:\t0" not in text for text in tasks):
            return
        signal.sigtimedwait((), 0.01)
    pytest.skip("nobody may trace here")
