"""Mirrors strongroom/cli/answer.py."""

import json

import pytest

from strongroom.cli.answer import MAX_EVENT, StreamedAnswer, WholeAnswer
from strongroom.errors import FormatError, ProtocolError

WORDS = ["Hé", "llo", " 日本\n"]
STREAM = b"".join(
    [
        b": ping\n\n",
        *(f'data: {{"choices":[{{"delta":{{"content":{json.dumps(w)}}}}}]}}\n\n'.encode() for w in WORDS),
        b'data: {"choices":[{"delta":{},"finish_reason":"length","logprob":-0.5}]}\r\n\r\n',
        b'data: {"choices":[],"usage":{"total_tokens":9}}\n\n',
        b"data: [DONE]\n\n",
    ]
)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 64, len(STREAM)])
def test_words_come_out_whatever_the_pieces(step: int) -> None:
    answer = StreamedAnswer()
    words = [answer.feed(STREAM[at : at + step]) for at in range(0, len(STREAM), step)]
    assert "".join(words) + answer.end() == "".join(WORDS)
    assert answer.finish == "length"


def test_words_are_known_at_once() -> None:
    answer = StreamedAnswer()
    head, rest = STREAM[: STREAM.index(b"llo")], STREAM[STREAM.index(b"llo") :]
    assert answer.feed(head) == "Hé"
    assert answer.feed(rest) == "llo 日本\n"


@pytest.mark.parametrize("length", range(0, STREAM.index(b"[DONE]") + 6, 7))
def test_a_stream_cut_before_done_is_not_whole(length: int) -> None:
    answer = StreamedAnswer()
    answer.feed(STREAM[:length])
    with pytest.raises(ProtocolError, match=r"without \[DONE\]"):
        answer.end()


@pytest.mark.parametrize(
    ("data", "error", "why"),
    [
        (b"data: {\n", FormatError, "not JSON"),
        (b"data: []\n", FormatError, "without choices"),
        (b'data: {"choices":[1]}\n', FormatError, "without choices"),
        (b'data: {"choices":[],"choices":[]}\n', FormatError, "appears twice"),
        (b'data: {"error":{"message":"engine died"}}\n', ProtocolError, "engine died"),
        (b'data: {"error":null}\n', ProtocolError, "no reason given"),
        (b'data: [DONE]\ndata: {"choices":[]}\n', ProtocolError, "after"),
        (b"data: " + b"x" * (MAX_EVENT + 1), FormatError, "longer than"),
    ],
)
def test_streams_that_are_refused(data: bytes, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        StreamedAnswer().feed(data)


def test_a_whole_answer() -> None:
    answer = WholeAnswer()
    body = json.dumps({"choices": [{"message": {"content": "Hé"}, "finish_reason": "stop"}]}).encode()
    assert answer.feed(body[:5]) == answer.feed(body[5:]) == ""
    assert (answer.end(), answer.finish) == ("Hé", "stop")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"choices":[]}', b'{"choices":[{"message":{}}]}'])
def test_whole_answers_that_are_refused(body: bytes) -> None:
    answer = WholeAnswer()
    answer.feed(body)
    with pytest.raises(FormatError):
        answer.end()
