"""Mirrors strongroom/host/yamltext.py."""

from typing import Any

import pytest

from strongroom.errors import ConfigError
from strongroom.host.yamltext import MAX_BYTES, parse_yaml


def test_reads_what_it_looks_like() -> None:
    text = """\
# a comment
text: plain words
quoted: "12"
block: |
  two
  lines
number: -12
zero: 0
point: 0.5
yes: true
no: false
nothing:
tilde: ~
list: [1, two, {three: 3}]
nested:
  - name: x
    value: {}
"""
    assert parse_yaml(text, "file") == {
        "text": "plain words",
        "quoted": "12",
        "block": "two\nlines\n",
        "number": -12,
        "zero": 0,
        "point": 0.5,
        "yes": True,
        "no": False,
        "nothing": None,
        "tilde": None,
        "list": [1, "two", {"three": 3}],
        "nested": [{"name": "x", "value": {}}],
    }


@pytest.mark.parametrize(
    "word",
    [
        "yes",
        "off",
        "NULL",
        "True",
        "0123",
        "0x10",
        "0o7",
        "1_000",
        "1e3",
        ".5",
        "5.",
        "12:30:45",
        ".inf",
        "+1",
        "-0123",
        "2026-01-31",
        "2026-01-31T00:00:00Z",
        "1" * 64,
        "=",
        "<<",
    ],
)
def test_what_yaml_would_turn_into_something_else_stays_text(word: str) -> None:
    assert parse_yaml(f"key: {word}", "file") == {"key": word}
    assert parse_yaml(f"key: [{word}]", "file") == {"key": [word]}


def test_bytes_and_text_are_read_alike() -> None:
    assert parse_yaml("ä: é".encode(), "file") == parse_yaml("ä: é", "file") == {"ä": "é"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "file: empty, want a mapping"),
        ("# nothing", "file: empty, want a mapping"),
        ("- a", "file: line 1: want a mapping"),
        ("text", "file: line 1: want a mapping"),
        ("a: 1\na: 2", "file: a: line 2: the key appears twice"),
        ("a:\n  b: 1\n  'b': 2", r"file: a\.b: line 3: the key appears twice"),
        ("a: [{b: 1, b: 2}]", r"file: a\[0\]\.b: line 1: the key appears twice"),
        ("a: &x 1", "file: a: line 1: an anchor"),
        ("a: 1\nb: *x", "file: b: line 2: an alias"),
        ("a: &x {}\nb: *x", "file: a: line 1: an anchor"),
        (
            "a: !!python/object:os.system x",
            "file: a: line 1: tag 'tag:yaml.org,2002:python/object:os.system'",
        ),
        ("a: !!str 1", "file: a: line 1: tag"),
        ("a: !x {}", "file: a: line 1: tag '!x', want none"),
        ("a: ! x", "file: a: line 1: tag"),
        ("!x\na: 1", "file: line 1: tag '!x'"),
        ("&x\na: 1", "file: line 1: an anchor"),
        ("a: 1\n---\nb: 2", "file: line 2: a second document"),
        ("1: a", "file: line 1: a key is not text"),
        ("a:\n  true: 1", "file: a: line 2: a key is not text"),
        ("? [a]\n: b", "file: line 1: a key is not text"),
        ("'': b", "file: line 1: a key is not text"),
        ("a: b: c", "file: line 1: mapping values are not allowed here"),
        ("a: [1", "file: line 1: "),
        ("a:\n\tb: 2", "file: line 2: "),
        ("a: '\x07'", "file: not YAML"),
        ('a: "\\U00110000"', "file: an escape or a version out of range"),
        ('a: "\\UFFFFFFFF"', "file: an escape or a version out of range"),
        (f"%YAML 1.{'9' * 5000}\n---\na: 1", "file: an escape or a version out of range"),
        ('a: "\\ud800"', "file: a: line 1: an escape that is half a character"),
        ("a: " + "[" * 16 + "]" * 16, r"file: a(\[0\])+: line 1: nested deeper than 16 levels"),
        ("a: " + "[" * 100_000, "nested deeper than 16 levels"),
    ],
)
def test_everything_else_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parse_yaml(text, "file")
    assert "\n" not in str(caught.value)


def test_size_comes_first() -> None:
    with pytest.raises(ConfigError, match=f"file: {MAX_BYTES + 1} bytes, want at most {MAX_BYTES}"):
        parse_yaml(b"#" * (MAX_BYTES + 1), "file")
    with pytest.raises(ConfigError, match="file: 3 bytes, want at most 2"):
        parse_yaml("ä:", "file", max_bytes=2)


@pytest.mark.parametrize("data", [b"a: \xff", "a: b".encode("utf-16")])
def test_only_utf8_is_text(data: bytes) -> None:
    with pytest.raises(ConfigError, match="file: not UTF-8 text"):
        parse_yaml(data, "file")


@pytest.mark.parametrize("key", ["a\\nb", "x" * 300])
def test_odd_keys_are_shown_on_one_line(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(f'"{key}": 1\n"{key}": 2', "file")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_result_is_plain() -> None:
    value: Any = parse_yaml("a: [{b: c}]", "file")
    assert (type(value), type(value["a"]), type(value["a"][0]), type(value["a"][0]["b"])) == (
        dict,
        list,
        dict,
        str,
    )
