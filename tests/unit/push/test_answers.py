"""Mirrors strongroom/push/answers.py: three answers, each in one shape."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from strongroom.errors import FormatError
from strongroom.push.answers import Accepted, Missing, pack_accepted, pack_next, parse_answer
from strongroom.push.content import Span

ACCEPTED = Accepted(
    name="tiny", epoch=3, root=bytes([1]) * 32, manifest_sha256=bytes([2]) * 32, provider_sha256=bytes([3]) * 32
)  # fmt: skip
MISSING = Missing((Span(0, 3), Span(5, 1 << 40)))


def test_packed_and_parsed_they_are_the_same() -> None:
    assert parse_answer(pack_accepted(ACCEPTED)) == ACCEPTED
    assert parse_answer(MISSING.pack()) == MISSING
    assert parse_answer(Missing(()).pack()) == Missing(())
    assert parse_answer(pack_next(7)) == 7


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"1", b'{"next":-1}', b'{"next":true}', b'{"next":"1"}', b'{"next":1,"more":1}',
        b'{"missing":{}}', b'{"missing":[1]}', b'{"missing":[[1]]}', b'{"missing":[[2,1]]}',
        b'{"missing":[[1,1]]}', b'{"missing":[[0,true]]}', b'{"missing":[[0,3],[2,5]]}',
        b'{"missing":[[5,6],[0,3]]}', b'{"missing":[],"next":1}', b'{"accepted":{}}', b'{"accepted":[]}',
    ],
)  # fmt: skip
def test_other_shapes_are_refused(raw: bytes) -> None:
    with pytest.raises(FormatError):
        parse_answer(raw)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("root"),
        lambda v: v.update(more=1),
        lambda v: v.update(name=1),
        lambda v: v.update(name="a b"),
        lambda v: v.update(epoch=0),
        lambda v: v.update(epoch=True),
        lambda v: v.update(root="00"),
        lambda v: v.update(manifest_sha256="AB" * 32),
        lambda v: v.update(provider_sha256=None),
    ],
)
def test_what_was_accepted_has_exactly_its_members(change: Callable[[Any], object]) -> None:
    value = json.loads(pack_accepted(ACCEPTED))
    change(value["accepted"])
    with pytest.raises(FormatError, match=r"^push answer: accepted|^manifest: name"):
        parse_answer(json.dumps(value).encode())


@pytest.mark.guarantee("G16")
def test_cut_anywhere_they_are_refused() -> None:
    for good in (pack_accepted(ACCEPTED), MISSING.pack(), pack_next(12)):
        for length in range(len(good)):
            with pytest.raises(FormatError):
                parse_answer(good[:length])
