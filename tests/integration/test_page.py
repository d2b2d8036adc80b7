"""The page for people in a real browser: what it shows, that its policy holds, and that it asks for nothing else."""

import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sidecars.proxy.face.page import HEADERS, TYPE, page
from strongroom.measure.tree import words
from tests.fakes.chromium import dom, picture
from tests.fakes.silicon import MEASUREMENT
from tests.unit.sidecars.proxy.face.test_page import HOSTILE, facts

pytestmark = pytest.mark.slow
PLAIN = b"<!doctype html><title>x</title><style>body{background:#000}</style><body style='color:red'>x"


class Shown(ThreadingHTTPServer):
    """A server of one document, with the headers that the door sends with its page."""

    def __init__(self, document: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.document = document
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Shown)
        self.server.asked.append(self.path)
        found = self.path == "/"
        self.send_response(200 if found else 404)
        for name, value in {**HEADERS, "content-type": TYPE}.items():
            self.send_header(name, value)
        body = self.server.document if found else b""
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def shown(document: str | bytes) -> Iterator[Shown]:
    server = Shown(document.encode() if isinstance(document, str) else document)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_browser_shows_it_and_asks_for_nothing_else(tmp_path: Path) -> None:
    with shown(page(facts(tmp_path))) as server:
        document, told = dom(tmp_path, server.url)
    assert set(server.asked) <= {"/", "/favicon.ico"}  # the second by itself
    assert words(MEASUREMENT) in document
    assert '<strong id="receipts">1,234 receipts</strong>' in document
    assert len(re.findall(r"<rect ", document)) == 10
    assert "Content Security Policy" not in told


def test_its_policy_refuses_any_other_style(tmp_path: Path) -> None:
    """Which also shows that the browser would have told of a violation in the test above."""
    with shown(PLAIN) as server:
        _, told = dom(tmp_path, server.url)
    assert told.count("Content Security Policy") >= 2


def test_names_of_strangers_stay_text_in_a_browser(tmp_path: Path) -> None:
    hostile = replace(facts(tmp_path), title=HOSTILE, host=HOSTILE)
    with shown(page(hostile)) as server:
        document, told = dom(tmp_path, server.url)
    assert "<script" not in document
    assert document.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
    assert "Content Security Policy" not in told


@pytest.mark.parametrize("width", [390, 1100])
def test_it_looks_like_something(tmp_path: Path, width: int) -> None:
    with shown(page(facts(tmp_path))) as server:
        png = picture(tmp_path, server.url, width=width)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(png[16:20], "big") == width
    assert len(_colours(png)) > 50  # text has many shades; a page without its style has few


def _colours(png: bytes) -> set[bytes]:
    """Some of a PNG's raw pixels: enough to tell a page from a blank."""
    at, packed = 8, b""
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        packed += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    raw = zlib.decompress(packed)
    return {raw[n : n + 3] for n in range(0, len(raw) - 3, 3)}
