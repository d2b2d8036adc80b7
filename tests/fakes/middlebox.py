"""What stands before a door: it ends the TLS with its own certificate, reads all, changes what it is told to."""

import ssl
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.fakes.asking import connection
from tests.fakes.certified import Certified


@dataclass
class Passed:
    method: str
    target: str
    body: bytes


class Middlebox:
    """`change_request` and `change_answer` see bodies; `says` is an answer of its own: status, type, body."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        with tempfile.TemporaryDirectory() as directory:
            files = Certified.make("middlebox", usage=ExtendedKeyUsageOID.SERVER_AUTH).write(Path(directory))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def reset(self) -> None:
        self.requests: list[Passed] = []
        self.answers: list[bytes] = []
        self.heads = b""  # what was outside of bodies
        self.change_request: Callable[[bytes], bytes] = lambda raw: raw
        self.change_answer: Callable[[bytes], bytes] = lambda raw: raw
        self.says: tuple[int, str, bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    @property
    def seen(self) -> bytes:
        """Every byte that passed but the evidence, which is for everybody."""
        sealed = [passed for passed in self.requests if passed.method == "POST"]
        answers = self.answers[-len(sealed) :] if sealed else []
        return self.heads + b"".join(passed.body for passed in sealed) + b"".join(answers)

    def send(self, body: bytes) -> tuple[int, bool]:
        """A sealed request of its own: the status outside, and whether the answer is sealed."""
        status, headers, _ = self._forward("POST", "/.well-known/strongroom/sealed", body)
        return status, headers["content-type"].endswith("sealed-response")

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _forward(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        client = connection(urlsplit(self.upstream).port or 443)
        try:
            headers = {"content-type": "application/vnd.strongroom.sealed-request"} if body else {}
            client.request(method, target, body=body or None, headers=headers)
            response = client.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            client.close()

    def _handler(box) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def handle(self) -> None:
                with suppress(OSError, HTTPException):
                    super().handle()

            def do_GET(self) -> None:
                self._pass()

            def do_POST(self) -> None:
                self._pass()

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                box.requests.append(Passed(self.command, self.path, body))
                box.heads += f"{self.command} {self.path}\n{self.headers}".encode()
                if box.says is not None:
                    status, kind, answer = box.says
                else:
                    status, headers, answer = box._forward(
                        self.command, self.path, box.change_request(body) if body else b""
                    )
                    kind = headers["content-type"]
                    box.heads += f"{status} {headers}".encode()
                    box.answers.append(answer)
                    answer = box.change_answer(answer)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
