"""Mirrors strongroom/wire/toml.py."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.wire.toml import MAX_DEPTH, MAX_DOTS, parse_toml


def parsed(text: str) -> dict[str, object]:
    return parse_toml(text, "text", max_bytes=1 << 20)


def test_a_table_comes_out() -> None:
    assert parsed('a.b = 1\n[c]\n"d.toml" = """\nx = "y"\n"""\n') == {
        "a": {"b": 1},
        "c": {"d.toml": 'x = "y"\n'},
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = ", "not TOML"),
        ("a = 1\na = 2", "not TOML: cannot overwrite a value"),
        ("a = " + "9" * 5000, "not TOML"),
        ("a = \ud800", "lone surrogate"),
        ("a = " + "[" * (MAX_DEPTH + 1), f"deeper than {MAX_DEPTH}"),
        ("a = " + "[" * 100_000, f"deeper than {MAX_DEPTH}"),
        ("a = " + "{a=" * 100_000, f"deeper than {MAX_DEPTH}"),
        ('a = ["""x"""", ' + "[" * 100_000, f"deeper than {MAX_DEPTH}"),
        (".".join("a" * (MAX_DOTS + 2)) + " = 1", f"more than {MAX_DOTS} dots"),
        (".".join(['"a"'] * 50_000) + " = 1", f"more than {MAX_DOTS} dots"),
        ("x = 1 " * 300_000, "bytes, want at most"),
    ],
    ids=range(11),
)
def test_the_rest_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(FormatError, match=why) as caught:
        parsed(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "content",
    ["." * 500, "[" * 500, '\\"' + "[" * 500, "# " + "[" * 500, "'" + "[" * 500, "a" * 70 + "." * 70],
)
def test_what_stands_in_a_string_or_a_comment_does_not_count(content: str) -> None:
    assert parsed(f'a = """{content}"""\n# {"[" * 99}\nb = 1')["b"] == 1
    assert parsed(f"a = '{'[' * 99}'  # {'.' * 99}\nb = 1") == {"a": "[" * 99, "b": 1}
    assert parsed("a = '''" + content.replace("'", "") + "'''") == {"a": content.replace("'", "")}


@given(st.text(alphabet="ab.=[]{}\"'#\\\n1, ", max_size=60))
def test_nothing_but_a_format_error_comes_out(text: str) -> None:
    with suppress(FormatError):
        assert isinstance(parsed(text), dict)
