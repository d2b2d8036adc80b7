"""Mirrors strongroom/cli/connect.py and connecting.py; the verb at work is in tests/integration/test_connect.py."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from strongroom.cli.connect import Keeper
from strongroom.cli.connecting import _once, _twice, read_token
from strongroom.cli.kept import Kept
from strongroom.cli.main import main
from strongroom.errors import ConfigError, MachineError
from strongroom.host.exchange import Proof
from strongroom.receipts.envelope import parse
from strongroom.verify.lacking import LackingError
from tests.fakes.machine import Machine, policy_file, serving
from tests.unit.host.relay.test_carrying import Streaming, carried, chat

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--listen", "0.0.0.0:8000"], "want a loopback address"),
        (["--verify-every", "0"], "want 1 to 86400"),
        (["--verify-every", "nan"], "want 1 to 86400"),
        (["--keep-receipts", "/nowhere"], "is no directory"),
        (["--token-file", "/nowhere"], "/nowhere: no such file"),
    ],
)
def test_a_wrong_word_ends_it_before_anything_is_asked(
    tmp_path: Path, capsys: Capture, words: list[str], why: str
) -> None:
    machine = Machine()
    with serving(machine) as url:
        assert main(["connect", url, "--policy", str(policy_file(tmp_path, machine)), *words]) in (3, 8)
    out, err = capsys.readouterr()
    assert out == "" and why in err and err.count("\n") == 1 and not machine.requests


@pytest.mark.guarantee("G8")
def test_a_server_that_is_refused_is_not_listened_for(tmp_path: Path, capsys: Capture) -> None:
    machine = Machine()
    policy = policy_file(tmp_path, machine, host_data=["00" * 32])
    with serving(machine) as url:
        assert main(["connect", url, "--policy", str(policy), "--listen", "127.0.0.1:0"]) == 6
    out, err = capsys.readouterr()
    assert out == "" and "refused" in err


def _proof() -> Proof:
    with carried(Streaming()) as carrier:
        carrier.ask(chat(stream=False))
        return carrier.kept[0]


def test_receipts_are_kept_for_their_owner(tmp_path: Path) -> None:
    proof, keeper = _proof(), Keeper(tmp_path)
    keeper.keep(proof)
    (kept,) = tmp_path.iterdir()
    assert kept.name == f"{proof.receipt.id}.receipt" and kept.stat().st_mode & 0o777 == 0o600
    assert parse(kept.read_bytes())[0].receipt == proof.receipt
    with pytest.raises(MachineError, match="exists"):
        keeper.keep(proof)
    Keeper(None).keep(proof)


def test_a_token_is_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_bytes(b" word\n")
    assert read_token(str(tmp_path / "token")) == "word"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped\n")))
    assert read_token("-") == "piped"
    for wrong in (b"", b"two words", b"x" * 4097, b"\xff"):
        (tmp_path / "token").write_bytes(wrong)
        with pytest.raises(ConfigError, match="want one printable word"):
            read_token(str(tmp_path / "token"))


class Lacking:
    """A supply that has nothing until it was told to fetch."""

    def __init__(self) -> None:
        self.fetched = 0

    def fetch(self) -> None:
        self.fetched += 1

    @contextmanager
    def telling(self) -> Iterator[None]:
        yield

    def dial(self) -> Any:
        if not self.fetched:
            raise LackingError("collateral: lacking")
        return "connected"


def test_what_lacks_is_fetched_where_that_was_asked_for() -> None:
    supply = Lacking()
    kept = cast(Kept, supply)
    with pytest.raises(LackingError):
        _once(supply.dial, kept)
    assert supply.fetched == 0
    assert cast(str, _twice(supply.dial, kept)) == "connected" and supply.fetched == 1
    assert cast(str, _twice(supply.dial, kept)) == "connected" and supply.fetched == 1
