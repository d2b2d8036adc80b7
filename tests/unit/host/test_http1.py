"""Mirrors strongroom/host/http1.py: answers cut at every length and served in pieces of every size."""

import pytest

from strongroom.errors import ProtocolError, TransportError
from strongroom.host.http1 import HTTPConnection, Limits, Response

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-one: 1\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


class Script:
    """A stream that answers with given bytes, `step` at a time, then ends cleanly."""

    def __init__(self, *answers: bytes, step: int = 1 << 16) -> None:
        self.sent: list[bytes] = []
        self.timeouts: list[float] = []
        self._answers = list(answers)
        self._step = step
        self._rest = b""

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self._rest += self._answers.pop(0) if self._answers else b""

    def recv(self, limit: int) -> bytes:
        piece, self._rest = self._rest[: min(self._step, limit)], self._rest[min(self._step, limit) :]
        return piece

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)


def ask(script: Script, limits: Limits | None = None) -> Response:
    return HTTPConnection(script, "llm.example").request("GET", "/v1/models", limits=limits)


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
@pytest.mark.parametrize("step", [1, 2, 7, 1 << 16])
def test_the_body_comes_whole_whatever_the_pieces(answer: bytes, step: int) -> None:
    assert ask(Script(answer, step=step)).read() == b"hello"


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_an_answer_cut_at_any_length_is_refused(answer: bytes) -> None:
    for length in range(len(answer)):
        with pytest.raises(ProtocolError, match=r"^http: "):
            ask(Script(answer[:length])).read()


def test_the_request_is_what_was_asked_for() -> None:
    script = Script(PLAIN)
    HTTPConnection(script, "[::1]:8443").request("POST", "/x", headers={"authorization": "B t"}, body=b"{}")
    head, _, body = b"".join(script.sent).lower().partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"post /x http/1.1", b"host: [::1]:8443", b"authorization: b t", b"content-length: 2"
    ]  # fmt: skip
    assert body == b"{}"


def test_requests_follow_one_another_on_one_connection() -> None:
    script = Script(PLAIN, CHUNKED)
    connection = HTTPConnection(script, "h")
    assert connection.request("GET", "/a").read() == b"hello"
    assert connection.request("GET", "/b").read() == b"hello"
    assert len(script.sent) == 2


def test_a_second_request_before_the_body_is_read_is_refused() -> None:
    connection = HTTPConnection(Script(PLAIN, PLAIN), "h")
    connection.request("GET", "/a")
    with pytest.raises(ProtocolError, match="at its end"):
        connection.request("GET", "/b")


def test_a_server_that_closes_ends_the_connection() -> None:
    closing = PLAIN.replace(b"x-one: 1", b"connection: close")
    connection = HTTPConnection(Script(closing, PLAIN), "h")
    connection.request("GET", "/a").read()
    with pytest.raises(ProtocolError, match="at its end"):
        connection.request("GET", "/b")


def test_headers_are_read_without_case_and_never_twice() -> None:
    assert ask(Script(PLAIN)).header("X-One") == "1"
    assert ask(Script(PLAIN)).header("x-two") is None
    twice = PLAIN.replace(b"x-one: 1", b"x-one: 1\r\nX-One: 2")
    with pytest.raises(ProtocolError, match="header x-one came 2 times"):
        ask(Script(twice)).header("x-one")


def test_a_body_over_the_limit_is_refused() -> None:
    assert ask(Script(PLAIN), Limits(body=5)).read() == b"hello"
    with pytest.raises(ProtocolError, match="longer than 4 bytes"):
        ask(Script(PLAIN), Limits(body=4)).read()


def test_endless_headers_are_refused() -> None:
    with pytest.raises(ProtocolError, match=r"^http: "):
        ask(Script(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000, step=4096))


def test_endless_interim_answers_are_refused() -> None:
    with pytest.raises(ProtocolError, match="did not answer"):
        ask(Script(b"HTTP/1.1 102 Processing\r\n\r\n" * 100))


def test_compressed_answers_are_refused() -> None:
    with pytest.raises(ProtocolError, match="content-encoding is 'gzip'"):
        ask(Script(PLAIN.replace(b"x-one: 1", b"content-encoding: gzip")))


def test_something_else_than_http_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"^http: "):
        ask(Script(b"SSH-2.0-OpenSSH_9.2\r\n"))


def test_a_slow_drip_ends_at_the_total() -> None:
    ticks = iter(range(1000))
    script = Script(PLAIN, step=1)
    connection = HTTPConnection(script, "h", clock=lambda: float(next(ticks)))
    with pytest.raises(TransportError, match="no complete answer after 20 s"):
        connection.request("GET", "/", limits=Limits(silence=5, total=20)).read()
    assert max(script.timeouts) == 5 and min(script.timeouts) == 1


def test_the_next_request_may_take_its_own_time() -> None:
    ticks = iter(range(1000))
    script = Script(PLAIN * 2, step=len(PLAIN))
    connection = HTTPConnection(script, "h", clock=lambda: float(next(ticks)))
    connection.request("GET", "/", limits=Limits(silence=5, total=2)).read()
    before = len(script.timeouts)
    connection.request("GET", "/", limits=Limits(silence=5, total=20)).read()
    assert script.timeouts[before] == 5
