"""Stores on loopback that serve files over TLS by range, and misbehave on request."""

import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from strongroom.cli.broker_certificate import CERTIFICATE, KEY


@dataclass(frozen=True)
class Request:
    path: str  # without the query
    query: str
    headers: dict[str, str]  # names in lower case


@dataclass
class Answer:
    """What goes back. `cut` ends the connection after so many bytes of the body, `hang` sends them and then nothing."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    hang: bool = False
    length: int | None = None  # what is announced, where that is a lie


Rule = Callable[[Request], Answer | None]


@dataclass
class Store:
    """Files by path, and the rules that come before them: the first that has an answer gives it."""

    files: dict[str, bytes] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    heard: list[Request] = field(default_factory=list)
    etags: bool = True
    ranges: bool = True
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.heard if request.path == path]

    def answer(self, request: Request) -> Answer:
        self.heard.append(request)
        for rule in self.rules:
            if (answer := rule(request)) is not None:
                return answer
        return self.serve(request)

    def serve(self, request: Request) -> Answer:
        """As an honest store does (RFC 9110 section 14)."""
        body = self.files.get(request.path)
        if body is None:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        etag = f'"{sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": etag} if self.etags else {}
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if asked is None or not self.ranges or request.headers.get("if-range", etag) != etag:
            return Answer(200, body, headers)
        first = int(asked[1])
        if first >= len(body):
            return Answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        return Answer(206, body[first:], headers)


def times(count: int, rule: Rule) -> Rule:
    """The rule, for the first `count` requests it has an answer to."""
    left = [count]

    def limited(request: Request) -> Answer | None:
        answer = rule(request) if left[0] else None
        left[0] -= answer is not None
        return answer

    return limited


def at(path: str, answer: Callable[[Request], Answer] | Answer) -> Rule:
    """An answer to every request whose path ends so."""

    def rule(request: Request) -> Answer | None:
        if not request.path.endswith(path):
            return None
        return answer if isinstance(answer, Answer) else answer(request)

    return rule


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.store.answer(Request(path, query, headers))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Transfer-Encoding" not in answer.headers:
            self.send_header(
                "Content-Length", str(len(answer.body) if answer.length is None else answer.length)
            )
        self.end_headers()
        self.wfile.write(answer.body[: answer.cut])
        self.wfile.flush()
        if answer.hang:
            self.server.store.closing.wait(30)
        if answer.hang or answer.cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # all are joined at the end
    store: Store
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(30)
        with self.context.wrap_socket(request, server_side=True, suppress_ragged_eofs=True) as secured:
            super().finish_request(secured, client_address)

    def shutdown_request(self, request: Any) -> None:
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away


@contextmanager
def serving(directory: Path) -> Iterator[Store]:
    """A store with the certificate in `directory` (tests.fakes.https.certificate), on a free port of 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / CERTIFICATE, directory / KEY)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.context = context
    server.store = Store(url=f"https://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.store
    finally:
        server.store.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
