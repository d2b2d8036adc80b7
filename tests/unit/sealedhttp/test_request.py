"""Mirrors strongroom/sealedhttp/{keys,request}.py: what opens, and everything that must not."""

import json
from typing import Any, Final

import pytest

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.sealedhttp.keys import SIZE, OpeningKey, SealingKey
from strongroom.sealedhttp.request import OVERHEAD, PADDED_TO, Method, Request, digest, open_request, seal
from tests import ROOT

VECTORS: Final[dict[str, Any]] = json.loads((ROOT / "tests/vectors/sealed_body.json").read_text())
KEY: Final = OpeningKey.from_seed(bytes.fromhex(VECTORS["seed"]), bytes.fromhex(VECTORS["fresh"]))
SEALED: Final = bytes.fromhex(VECTORS["request"]["sealed"])
PLAIN: Final = bytes.fromhex(VECTORS["request"]["plain"])
REQUEST: Final = Request(
    time=VECTORS["request"]["time"],
    secret=bytes.fromhex(VECTORS["request"]["secret"]),
    method=Method.POST,
    target=VECTORS["request"]["target"],
    token=VECTORS["request"]["token"],
    body=VECTORS["request"]["body"].encode(),
)


def test_the_vector_opens() -> None:
    assert KEY.public.pack().hex() == VECTORS["key"] and KEY.public.id.hex() == VECTORS["key_id"]
    assert open_request(SEALED, KEY) == REQUEST
    assert digest(SEALED).hex() == VECTORS["request"]["sha256"]


def test_what_is_inside_has_one_encoding_but_for_padding() -> None:
    assert REQUEST.pack(multiple=PADDED_TO) == PLAIN
    assert Request.parse(REQUEST.pack()) == Request.parse(PLAIN) == REQUEST


def test_sealing_hides_length_and_repeats_nothing() -> None:
    one, two = seal(REQUEST, KEY.public), seal(REQUEST, KEY.public)
    assert one != two and len(one) == len(two) and (len(one) - OVERHEAD) % PADDED_TO == 0
    longer = Request(time=1, secret=bytes(32), method=Method.POST, target="/v1/x", token="t", body=b"x" * 500)
    assert len(seal(longer, KEY.public)) == len(one)


@pytest.mark.parametrize("length", [*range(200), *range(200, len(SEALED), 97), len(SEALED) - 1])
def test_every_cut_is_refused(length: int) -> None:
    with pytest.raises((FormatError, VerifyError)):
        open_request(SEALED[:length], KEY)


@pytest.mark.parametrize("at", [*range(40), *range(40, len(SEALED), 53), len(SEALED) - 1])
def test_every_flipped_bit_is_refused(at: int) -> None:
    for bit in (0, 7):
        changed = bytearray(SEALED)
        changed[at] ^= 1 << bit
        with pytest.raises((FormatError, VerifyError)) as caught:
            open_request(bytes(changed), KEY)
        _says_nothing(caught.value)


def test_bytes_behind_are_refused() -> None:
    with pytest.raises(VerifyError):
        open_request(SEALED + b"\0", KEY)


def test_another_key_does_not_open_it() -> None:
    other = OpeningKey.from_seed(bytes.fromhex(VECTORS["seed"]), bytes(32))
    with pytest.raises(FormatError, match="sealed to another key"):
        open_request(SEALED, other)
    with pytest.raises(VerifyError, match="does not open"):
        open_request(SEALED[:1] + other.public.id + SEALED[33:], other)


@pytest.mark.parametrize("length", range(len(REQUEST.pack())))
def test_every_cut_of_what_is_inside_is_refused(length: int) -> None:
    with pytest.raises(FormatError) as caught:
        Request.parse(REQUEST.pack()[:length])
    _says_nothing(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: p + b"\1", "padding is not zero"),
        (lambda p: p[:40] + b"\0" + p[41:], "method is 0"),
        (lambda p: p[:40] + b"\3" + p[41:], "method is 3"),
        (lambda p: p[:40] + b"\1" + p[41:], "a GET with a body"),
        (lambda p: b"\x80" + p[1:], "time is out of range"),
        (lambda p: p.replace(b"/v1", b"xv1"), "target"),
        (lambda p: p.replace(b"/v1/", b"/v1 "), "target"),
        (lambda p: p.replace(b"/v1/", b"/v1\xe9"), "target"),
        (lambda p: p.replace(b"token", b"tok n"), "token"),
        (lambda p: p.replace(b"token", b"tok\nn"), "token"),
        (lambda p: p.replace(b"token", b"tok\xffn"), "token"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused_without_repeating_it(change: Any, why: str) -> None:
    with pytest.raises(FormatError, match=why) as caught:
        Request.parse(change(REQUEST.pack()))
    _says_nothing(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"target": "/" + "a" * 2048},
        {"target": ""},
        {"token": "t" * 4097},
        {"secret": bytes(31)},
        {"time": -1},
    ],
)
def test_no_way_to_make_a_bad_one(fields: dict[str, Any]) -> None:
    good: dict[str, Any] = {"time": 1, "secret": bytes(32), "method": Method.GET, "target": "/v1/models"}
    with pytest.raises(FormatError, match="sealed request: "):
        Request(**(good | fields))


@pytest.mark.guarantee("G11")
def test_nothing_of_it_is_in_a_repr() -> None:
    shown = repr(REQUEST) + repr(KEY)
    assert REQUEST.token not in shown and "prompt" not in shown and REQUEST.secret.hex() not in shown
    assert "\\x" not in shown


@pytest.mark.parametrize("length", [0, 1, 24, 25, 30, 31, 1214, SIZE - 1, SIZE + 1])
def test_a_key_has_one_length(length: int) -> None:
    with pytest.raises(FormatError, match="sealed key"):
        SealingKey.parse((KEY.public.pack() + b"\0")[:length])


@pytest.mark.parametrize("at", [0, 24, 25, 27, 29])
def test_a_key_of_another_suite_is_refused(at: int) -> None:
    raw = bytearray(KEY.public.pack())
    raw[at] ^= 1
    with pytest.raises(FormatError, match="sealed key"):
        SealingKey.parse(bytes(raw))


def test_a_key_that_is_none_is_refused() -> None:
    raw = KEY.public.pack()
    with pytest.raises(FormatError, match="no public keys"):
        SealingKey.parse(raw[:31] + b"\xff" * 1184 + raw[-32:])
    assert SealingKey.parse(raw) == KEY.public


def test_a_key_is_made_of_both_parts() -> None:
    ids = {OpeningKey.from_seed(bytes([n]) * 32, bytes([m])).public.id for n in (0, 1) for m in (0, 1)}
    assert len(ids) == 4
    with pytest.raises(FormatError, match="seed is 31 bytes"):
        OpeningKey.from_seed(bytes(31), b"")


def _says_nothing(error: StrongroomError) -> None:
    for secret in (REQUEST.token, REQUEST.target, "prompt", REQUEST.secret.hex()):
        assert secret not in str(error)
