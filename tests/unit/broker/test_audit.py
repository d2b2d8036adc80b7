"""Mirrors broker/audit.py: a chain that shows every change but a cut end, and a kept head that shows that too."""

import json
from datetime import UTC, datetime

import pytest

from strongroom.broker.audit import START, Audit, Head, Outcome, verify_chain
from strongroom.broker.resource import ResourceURI
from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import pack_json

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
URI = ResourceURI.parse("kbs:///default/model/llama")


def chain(length: int) -> tuple[list[bytes], list[Head]]:
    lines, heads = [], [START]
    for n in range(length):
        audit = Audit(time=NOW, peer=f"192.0.2.{n}", outcome=Outcome.RELEASED, rule="policy 00", resource=URI)
        lines.append(audit.line(heads[-1]))
        heads.append(heads[-1].next(lines[-1]))
    return lines, heads


def test_a_line_says_who_what_and_why() -> None:
    audit = Audit(
        time=NOW, peer="192.0.2.1", outcome=Outcome.DENIED, rule="policy 00: no", resource=URI, version=3
    )
    assert json.loads(audit.line(START)) == {
        "time": "2026-11-20T12:00:00.000+00:00",
        "peer": "192.0.2.1",
        "resource": "kbs:///default/model/llama",
        "version": 3,
        "evidence_sha256": None,
        "verdict": "denied",
        "rule": "policy 00: no",
        "n": 1,
        "previous": "00" * 32,
    }


def test_text_of_a_peer_is_not_a_line_of_ours() -> None:
    audit = Audit(time=NOW, peer='"\n{"n":1}', outcome=Outcome.REFUSED, rule='","verdict":"released')
    line = audit.line(START)
    assert b"\n" not in line and json.loads(line)["verdict"] == "refused"


def test_a_whole_chain_verifies() -> None:
    lines, heads = chain(5)
    assert verify_chain(lines, kept=heads) == heads[-1]
    assert verify_chain([]) == START


@pytest.mark.parametrize("n", range(5))
def test_a_removed_line_is_seen(n: int) -> None:
    lines, heads = chain(5)
    kept = [heads[-1]] if n == 4 else []  # the end of a chain is known by a kept head alone
    with pytest.raises(VerifyError, match=r"a line was removed or moved|its last lines were removed"):
        verify_chain(lines[:n] + lines[n + 1 :], kept=kept)


@pytest.mark.parametrize("n", range(4))
def test_moved_lines_are_seen(n: int) -> None:
    lines, _ = chain(5)
    lines[n], lines[n + 1] = lines[n + 1], lines[n]
    with pytest.raises(VerifyError, match=f"audit line {n + 1}: its number is {n + 2}"):
        verify_chain(lines)


@pytest.mark.parametrize("n", range(5))
@pytest.mark.parametrize("member", ["peer", "rule", "verdict", "time", "resource"])
def test_an_edited_line_is_seen(n: int, member: str) -> None:
    lines, heads = chain(5)
    lines[n] = pack_json(json.loads(lines[n]) | {member: "other"})
    with pytest.raises(VerifyError, match=f"audit line {min(n + 2, 5)}"):
        verify_chain(lines, kept=heads[-1:])


def test_an_added_line_is_seen() -> None:
    lines, _ = chain(3)
    with pytest.raises(VerifyError, match="audit line 3: its number is 2"):
        verify_chain([*lines[:2], lines[1], *lines[2:]])


def test_a_chain_written_anew_is_known_by_a_kept_head() -> None:
    lines, heads = chain(5)
    forged = []
    at = START
    for line in lines[1:]:  # the first decision never happened, says the forger
        value = json.loads(line) | {"n": at.number + 1, "previous": at.digest.hex()}
        forged.append(pack_json(value))
        at = at.next(forged[-1])
    assert verify_chain(forged) == at
    for head in heads[1:]:
        with pytest.raises(VerifyError, match=r"want the one that was kept|its last lines were removed"):
            verify_chain(forged, kept=[head])


def test_every_flipped_bit_is_seen() -> None:
    lines, heads = chain(3)
    for place in range(len(lines[1])):
        for bit in range(8):
            changed = bytearray(lines[1])
            changed[place] ^= 1 << bit
            with pytest.raises(VerifyError):
                verify_chain([lines[0], bytes(changed), lines[2]], kept=heads[-1:])


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b'{"n":1}', b"\xff", b'{"n":1e99}', b'{"n":99999999999999999}']
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(VerifyError, match="audit line 1"):
        verify_chain([line])


def test_a_head_is_read_as_it_is_written() -> None:
    _, heads = chain(2)
    assert Head.parse(str(heads[2])) == heads[2]
    for text in ("", "1", "1:zz", f"01:{'0' * 64}", f"-1:{'0' * 64}", f"1:{'0' * 63}", f"1:{'A' * 64}"):
        with pytest.raises(FormatError, match="audit head"):
            Head.parse(text)


def test_two_kept_heads_that_disagree_are_refused() -> None:
    lines, _ = chain(1)
    with pytest.raises(VerifyError, match="two different heads"):
        verify_chain(lines, kept=[Head(1, bytes(32)), Head(1, b"\1" * 32)])
