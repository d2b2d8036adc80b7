"""Who is measured: each a TLS listener on loopback before the same engine, each with one worker."""

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError
from strongroom.host.run import PIPE, Child, run, spawn

ROOT: Final = Path(__file__).resolve().parents[2]
READY: Final = 30.0  # seconds
OURS, HAPROXY, NGINX, PYTHON = "strongroom", "haproxy", "nginx", "aiohttp"
_CPU_OF_PROCESS: Final = 2  # CPUCLOCK_SCHED, in a clock id made of a pid (clock_getcpuclockid)
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_HAPROXY: Final = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
frontend door
    bind 127.0.0.1:{port} ssl crt {both} ssl-min-ver TLSv1.3
    default_backend engine
backend engine
    http-reuse always
    server engine unix@{engine}
"""
_NGINX: Final = """
worker_processes 1;
daemon off;
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/f;
    uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    keepalive_requests 100000000;
    upstream engine {{ server unix:{engine}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
        location / {{
            proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_read_timeout 600s; client_body_buffer_size 1m;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Running:
    port: int
    pids: tuple[int, ...]

    def cpu(self) -> float:
        """Seconds that its processes have computed so far, in user mode and in the kernel."""
        return sum(time.clock_gettime((~pid << 3) | _CPU_OF_PROCESS) for pid in self.pids)


@dataclass(frozen=True, slots=True)
class Place:
    work: Path
    engine: Path
    certificate: Path  # PEM
    key: Path
    both: Path


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    what: str
    started: Callable[[Place], "Iterator[Running]"]
    program: str = ""  # that has to be there

    @property
    def is_there(self) -> bool:
        return not self.program or shutil.which(self.program, path=_PATH) is not None

    def version(self) -> str:
        if not self.program:
            return ""
        done = run([self.program, "-v"], check=False)
        return (done.stdout + done.stderr).decode().splitlines()[0]


def _ours(place: Place) -> Iterator[Running]:
    directory = place.work / "door"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    yield from _python("bench.ingress.ours", place, str(directory))


def _plain_python(place: Place) -> Iterator[Running]:
    yield from _python("bench.ingress.plain_python", place)


def _python(module: str, place: Place, *more: str) -> Iterator[Running]:
    files = [str(place.engine), str(place.certificate), str(place.key)]
    with (
        (place.work / f"{module}.log").open("wb") as log,
        spawn([sys.executable, "-m", module, *files, *more], cwd=ROOT, stdout=PIPE, stderr=log) as child,
    ):
        yield Running(int(child.line(READY)), (child.pid,))


def _haproxy(place: Place) -> Iterator[Running]:
    port, config = _free(), place.work / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port=port, both=place.both, engine=place.engine))
    with spawn(["haproxy", "-db", "-f", str(config)], env={"PATH": _PATH}) as child:
        _wait(child, port)
        yield Running(port, (child.pid,))


def _nginx(place: Place) -> Iterator[Running]:
    port, config = _free(), place.work / "nginx.conf"
    config.write_text(
        _NGINX.format(
            port=port, work=place.work, engine=place.engine, certificate=place.certificate, key=place.key
        )
    )
    with spawn(["nginx", "-p", str(place.work), "-c", str(config)], env={"PATH": _PATH}) as child:
        _wait(child, port)
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        yield Running(port, (child.pid, *map(int, children)))


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait(child: Child, port: int) -> None:
    for _ in range(int(READY / 0.1)):
        child.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise MachineError(f"bench: nobody listens on port {port}")


SUBJECTS: Final = (
    Subject(OURS, "the door: token, fields, salt, hashes, log of receipts", _ours),
    Subject(HAPROXY, "TLS and nothing else, one thread", _haproxy, "haproxy"),
    Subject(NGINX, "TLS and nothing else, one worker, unbuffered", _nginx, "nginx"),
    Subject(PYTHON, "token, salt and hashes in plain Python on uvloop", _plain_python),
)


@contextmanager
def running(subject: Subject, place: Place) -> Iterator[Running]:
    """The subject, listening. Raises MachineError when it does not start."""
    work = place.work / subject.name
    work.mkdir(exist_ok=True)
    os.chmod(work, 0o755)  # nginx's worker may be somebody else
    yield from subject.started(Place(work, place.engine, place.certificate, place.key, place.both))
