"""Mirrors sidecars/proxy/bodies.py: whatever is read fast is read as it would be slowly."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecars.proxy import bodies
from sidecars.proxy.bodies import read_json, read_object, write_json
from strongroom.errors import FormatError
from strongroom.wire.canonical import parse_json

LIMITS = {"max_bytes": 4096, "max_depth": 5, "max_values": 64}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
PIECES = st.sampled_from(
    [
        "{", "}", "[", "]", ",", ":",
        '"', "\\", '"a":', '"a":1,', '"\\u0061":', '"', '\\"', "\\\\", "1", "-0", "0", "-",
        "1e9", "1E400", "1e-400", "0.5", ".", "12345678901234567890123", "1234567890123456", "true", "null", "NaN", " ",
        "\n", '"\\ud800"', '"\\ud83d\\ude00"', "é", "\ufeff", '{"a":{"b":[', "]}}",
    ]
)  # fmt: skip


def both(data: bytes) -> tuple[Any, Any]:
    """What the fast way and the slow way make of it, None where it is refused."""
    found: list[Any] = []
    ways: tuple[Callable[[], Any], ...] = (
        lambda: read_json(data, "x", **LIMITS),
        lambda: parse_json(data, "x", floats=True, **LIMITS),
    )
    for read in ways:
        try:
            value = read()
            found.append((type(value), repr(value)))
        except FormatError as error:
            found.append(str(error))
    return found[0], found[1]


@given(VALUES)
@example({"a": -0.0, "b": 2**64 - 1, "c": 2**64, "d": -(2**63) - 1, "e": 1e308, "f": 5e-324})
def test_every_value_is_the_same(value: Any) -> None:
    fast, slow = both(json.dumps(value).encode())
    assert fast == slow
    fast, slow = both(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
    assert fast == slow


@given(st.lists(PIECES, max_size=14).map("".join))
@example('{"a":1,"a":2}')
@example('{"a":1,"\\u0061":2}')
@example('[{"a":[{"b":1,"b":1}]}]')
@example('{"a":"\\\\\\"","b":":"}')
@example('{"a":-0}')
@example('{"a":12345678901234567890123}')
@example("[" * 6 + "]" * 6)
@example('{{{{{\\"{')
def test_every_text_is_the_same(text: str) -> None:
    fast, slow = both(text.encode())
    assert fast == slow


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_the_same(data: bytes) -> None:
    fast, slow = both(data)
    assert fast == slow


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"b":{"a":1,"\\u0061":1}}', '[{"a":1},{"a":1,"a":1}]'])
def test_a_key_that_appears_twice_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="twice"):
        read_json(text.encode(), "x", **LIMITS)


def test_ordinary_bodies_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(bodies, "parse_json", slow)
    value = {
        "model": "tiny",
        "messages": [{"role": "user", "content": 'say "x: {[\\n' * 9}] * 9,
        "temperature": 0.7,
    }
    value |= {"seed": 7, "stream": True, "logprob": -0.12345678901234567, "small": 1e-05}
    limits = {"max_bytes": 1 << 20, "max_depth": 64, "max_values": 1 << 20}
    assert read_json(json.dumps(value).encode(), "x", **limits) == value
    assert read_json(json.dumps({"prompt": [[1, 2], [3]] * 40}).encode(), "x", **limits) is not None


@given(VALUES.filter(lambda value: "nan" not in repr(value) and "inf" not in repr(value)))
def test_what_is_written_reads_back(value: Any) -> None:
    assert json.loads(write_json(value)) == value


@pytest.mark.parametrize("text", ["", "[]", "null", '{"a":NaN}', '{"a":1', "{}x", '{"a":Infinity}', "\xff"])
def test_what_is_no_object_of_an_engine_is_none(text: str) -> None:
    assert read_object(text.encode("latin-1")) is None
    assert read_object(b'{"a":[1,-0.25]}') == {"a": [1, -0.25]}


def test_a_number_that_only_the_slow_way_can_write() -> None:
    assert write_json({"n": -(2**64) + 1}) == b'{"n":-18446744073709551615}'
    assert math.isclose(json.loads(write_json([0.1]))[0], 0.1)
