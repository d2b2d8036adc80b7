"""Mirrors host/brokerage/administration.py and rule.py."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom.broker.resource import ResourceURI
from strongroom.broker.signed import SignedRequest
from strongroom.errors import ConfigError, FormatError, PolicyError, StrongroomError, VerifyError
from strongroom.host.brokerage import ledger
from strongroom.host.brokerage.actors import recognise
from strongroom.host.brokerage.administration import ACTIONS, READING, perform
from strongroom.host.brokerage.house import House
from strongroom.wire.canonical import b64
from tests.fakes.house import (
    ACTOR,
    ALLOW,
    NOW,
    SIGNER,
    SIGNER_KEY,
    URI,
    do,
    house,
    policy,
    put,
    references,
    volume,
)

AT = ResourceURI.parse(URI)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "b") as one:
        yield one


def rules(at: House) -> list[str]:
    return [json.loads(line)["rule"] for line in ledger.read(at.database)]


def test_put_again_is_a_new_version_under_the_old_policy(made: House) -> None:
    assert put(made) == {"uri": URI, "version": 1, "epoch": 1, "policy": made.rules().resources[AT].rule.name}
    assert do(made, "put", uri=URI, payload=b64(b"next"))["version"] == 2
    kept = made.rules().resources[AT]
    assert [(one.number, one.epoch) for one in kept.versions] == [(1, 1), (2, 2)]
    assert made.secret(AT, kept.versions[0]) != made.secret(AT, kept.versions[1]) == b"next"
    assert rules(made)[1:] == [
        f"put {URI} version 1, epoch 1, under {kept.rule.name}",
        f"put {URI} version 2, epoch 2, under {kept.rule.name}",
    ]


def test_a_model_s_key_has_its_model_s_epoch(made: House) -> None:
    assert put(made, volume(5))["epoch"] == 5
    assert put(made, volume(5))["version"] == 2  # the same model again: nothing older
    with pytest.raises(ConfigError, match="epoch is 4, want at least the 5"):
        put(made, volume(4))


@pytest.mark.guarantee("G5")
def test_rotate_wants_a_newer_epoch(made: House) -> None:
    put(made, volume(5))
    assert do(made, "rotate", uri=URI, payload=b64(volume(6, b"\1" * 32)))["epoch"] == 6
    for epoch in (5, 6):
        with pytest.raises(ConfigError, match=f"epoch of the new key is {epoch}, want above 6"):
            do(made, "rotate", uri=URI, payload=b64(volume(epoch)))
    with pytest.raises(
        ConfigError, match="holds keys of sealed models, want the one `strongroom rekey` makes"
    ):
        do(made, "rotate", uri=URI, random=32)


def test_rotate_makes_a_secret_nobody_has_seen(made: House) -> None:
    put(made)
    assert do(made, "rotate", uri=URI, random=32) == {
        "uri": URI,
        "version": 2,
        "epoch": 2,
        "policy": made.rules().resources[AT].rule.name,
    }
    kept = made.rules().resources[AT]
    assert len(made.secret(AT, kept.versions[1])) == 32


def test_delete_a_version_or_all(made: House) -> None:
    put(made)
    put(made, b"2")
    assert do(made, "delete", uri=URI, version=2)["versions"] == [2]
    assert do(made, "put", uri=URI, payload=b64(b"3"))["version"] == 3  # a number is not used again
    assert do(made, "delete", uri=URI)["versions"] == [1, 3]
    assert made.rules().resources == {} and made.database.rows("SELECT * FROM version") == []


def test_revoke_and_reinstate(made: House) -> None:
    put(made, volume(1))
    put(made, volume(2, b"\1" * 32))
    kept = made.rules().resources[AT]
    do(made, "revoke", uri=URI, epoch=1, reason="leaked")
    assert made.rules().current(kept) == kept.versions[1]
    do(made, "revoke", uri=URI, epoch=2, reason="leaked again")
    assert made.rules().current(kept) is None
    with pytest.raises(ConfigError, match="epoch 2 is revoked, want above 2"):
        put(made, volume(2))
    with pytest.raises(ConfigError, match="epoch 2 is revoked already"):
        do(made, "revoke", uri=URI, epoch=1, reason="x")
    with pytest.raises(ConfigError, match="is not revoked"):
        do(made, "reinstate", uri=URI, epoch=1, reason="x")
    do(made, "reinstate", uri=URI, epoch=2, reason="it was not")
    assert made.rules().current(kept) == kept.versions[1]
    do(made, "revoke", measurement="ab" * 48, reason="advisory")
    assert made.rules().revoked_measurements() == {b"\xab" * 48: "advisory"}
    assert do(made, "list")["revocations"] == [
        {"kind": "measurement", "subject": "ab" * 48, "epoch": 0, "reason": "advisory"}
    ]


def test_a_policy_is_shown_and_replaced(made: House) -> None:
    pytest.importorskip("regopy")
    text = policy()
    put(made, policy=text)
    assert do(made, "get-policy", uri=URI) == {"uri": URI, "policy": text, "rego": None}
    do(made, "set-policy", uri=URI, rego=ALLOW)
    assert do(made, "get-policy", uri=URI) == {"uri": URI, "policy": None, "rego": ALLOW}
    assert rules(made)[-1].startswith(f"policy of {URI} replaced: policy ")


def test_reference_values_are_imported_once_newer_and_by_one_key(made: House) -> None:
    with pytest.raises(ConfigError, match="none here yet, want the key that may sign them"):
        do(made, "import-references", file=references())
    assert do(made, "import-references", file=references(), signer=SIGNER_KEY)["serial"] == 1
    with pytest.raises(ConfigError, match="serial is 1, want above 1"):
        do(made, "import-references", file=references())
    do(made, "import-references", file=references(serial=2))
    with pytest.raises(VerifyError, match="signed by key"):
        do(made, "import-references", file=references(serial=3), signer="A" * 43)
    past = int((NOW - timedelta(days=1)).timestamp())
    with pytest.raises(ConfigError, match="held until 2026-11-19 12:00, want newer"):
        do(made, "import-references", file=references(serial=3, not_after=past))
    assert [one["serial"] for one in do(made, "list-references")["references"]] == [2]
    do(made, "delete-references", name="my-image")
    assert made.rules().references == {}


def test_a_policy_builds_on_reference_values(made: House) -> None:
    text = json.dumps({"version": 1, "reference_values": ["my-image"], "host_data": "any"})
    with pytest.raises(ConfigError, match="no set my-image, want it imported"):
        put(made, policy=text)
    until = int((NOW + timedelta(days=1)).timestamp())
    do(made, "import-references", file=references(not_after=until), signer=SIGNER_KEY)
    put(made, policy=text)
    book = made.rules()
    composed = book.policy(book.resources[AT], NOW)
    assert composed is not None and [one.value for one in composed.measurements] == [b"\x11" * 48]
    with pytest.raises(ConfigError, match="my-image is not there or holds no more"):
        book.policy(book.resources[AT], NOW + timedelta(days=1))
    measurements = [{"kind": "snp", "name": "n", "value": "22" * 48}]
    do(made, "import-references", file=references(serial=2, measurements=measurements))
    book = made.rules()
    composed = book.policy(book.resources[AT], NOW)  # at once, and the old one is out
    assert composed is not None and [one.value for one in composed.measurements] == [b"\x22" * 48]


def test_reference_values_go_where_they_belong(made: House) -> None:
    hex48, hex32 = "33" * 48, "44" * 32
    registers = {"mr_td": hex48, "rtmr0": "any", "rtmr1": hex48, "rtmr2": hex48}
    measurements = [
        {"kind": "snp", "name": "s", "value": hex48},
        {"kind": "tdx", "name": "t", **registers},
        {"kind": "tpm", "name": "p", "pcrs": {"pcr11": hex32}},
    ]
    do(made, "import-references", file=references(measurements=measurements), signer=SIGNER_KEY)
    text = {
        "version": 1,
        "reference_values": ["my-image"],
        "measurements": [{"name": "old", "value": "00" * 48}],
        "host_data": "any",
        "tdx": {"mr_config_id": "any"},
        "tpm": {},
    }
    put(made, policy=json.dumps(text))
    composed = made.rules().policy(made.rules().resources[AT], NOW)
    assert composed is not None and composed.tdx is not None and composed.tpm is not None
    assert [one.name for one in composed.measurements] == ["old", "s"]
    assert [one.name for one in composed.tdx.images] == ["t"]
    assert [one.name for one in composed.tpm.states] == ["p"]


def test_reference_values_for_another_kind_of_machine_are_no_policy(made: House) -> None:
    registers = {"mr_td": "any", "rtmr0": "any", "rtmr1": "any", "rtmr2": "any"}
    measurements = [{"kind": "tdx", "name": "t", **registers}]
    do(made, "import-references", file=references(measurements=measurements), signer=SIGNER_KEY)
    with pytest.raises(ConfigError, match="my-image has nothing for a section of this policy"):
        put(made, policy=policy(reference_values=["my-image"]))


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("action", "arguments", "kind", "why"),
    [
        ("put", {"uri": URI}, ConfigError, "payload: missing"),
        ("put", {"uri": URI, "payload": ""}, FormatError, "got 0 bytes"),
        ("put", {"uri": URI, "payload": "!"}, FormatError, "payload"),
        ("put", {"uri": URI, "payload": "AA==", "extra": 1}, ConfigError, "extra: unknown key"),
        ("put", {"uri": "kbs:///a/b", "payload": "AA=="}, FormatError, "got 2 parts, want 3"),
        ("put", {"uri": URI, "payload": "AA=="}, ConfigError, "policy of .*: none given"),
        ("put", {"uri": URI, "payload": "AA==", "policy": "version: 1"}, ConfigError, "missing"),
        ("put", {"uri": URI, "payload": "AA==", "policy": policy(measurements=[])}, ConfigError, "empty"),
        (
            "put",
            {"uri": URI, "payload": "AA==", "policy": policy(allow_debug=True)},
            ConfigError,
            "debug guest",
        ),
        (
            "put",
            {"uri": URI, "payload": "AA==", "policy": policy(mesurements=[])},
            ConfigError,
            "unknown key",
        ),
        (
            "put",
            {"uri": URI, "payload": "AA==", "policy": policy(model={"minimum_epoch": 1})},
            ConfigError,
            "model: it is mounted only with a key from here",
        ),
        ("rotate", {"uri": URI, "random": 32}, ConfigError, "does not exist"),
        ("delete", {"uri": URI}, ConfigError, "does not exist"),
        ("revoke", {"reason": "x"}, ConfigError, "want either a measurement, or a resource and an epoch"),
        ("revoke", {"reason": "x", "measurement": "AB"}, ConfigError, "want 96 lowercase hex digits"),
        ("revoke", {"reason": "x", "uri": URI}, ConfigError, "want either a measurement"),
        ("revoke", {"reason": "", "uri": URI, "epoch": 1}, ConfigError, "reason"),
        ("revoke", {"reason": "x", "uri": URI, "epoch": -1}, ConfigError, "whole number"),
        ("import-references", {"file": "{}"}, FormatError, "missing"),
        ("delete-references", {"name": "x"}, ConfigError, "none here"),
        ("add-administrator", {"name": "a b", "key": SIGNER_KEY}, ConfigError, "want letters, digits"),
        ("add-administrator", {"name": "a", "key": "AAAA"}, FormatError, "3 bytes, want the 32"),
        ("add-administrator", {"name": "a", "key": SIGNER_KEY, "role": "root"}, ConfigError, "one of"),
        ("remove-administrator", {"name": "a"}, ConfigError, "no administrator a"),
        ("audit", {"count": 100000}, ConfigError, "whole number 0..500"),
        ("list", {"all": True}, ConfigError, "all: unknown key"),
        ("format-disk", {}, ConfigError, "action 'format-disk' is unknown"),
    ],
)
def test_what_cannot_be_done_is_named_and_leaves_nothing(
    made: House, action: str, arguments: dict[str, Any], kind: type[StrongroomError], why: str
) -> None:
    head = made.verify_audit()
    with pytest.raises(kind, match=why):
        perform(made, action, arguments, ACTOR)
    assert made.rules().resources == {} and made.verify_audit() == head


@pytest.mark.guarantee("G11")
def test_no_message_and_no_line_holds_a_secret(made: House) -> None:
    put(made, volume(3, bytes(range(32))))
    with pytest.raises(ConfigError) as caught:
        put(made, volume(2, bytes(range(32))))
    text = "\n".join(rules(made)) + str(caught.value) + repr(made.rules())
    assert b64(bytes(range(32)))[:40] not in text and "AAECAwQ" not in text


def request(action: str, nonce: bytes = bytes(16), **change: Any) -> SignedRequest:
    bare = SignedRequest(
        method="POST",
        path=f"/strongroom/v1/admin/{action}",
        body=b"{}",
        broker=bytes(32),
        key=SIGNER.public_key().public_bytes_raw(),
        time=int(NOW.timestamp()),
        nonce=nonce,
    )
    bare = replace(bare, **change)
    return SignedRequest.from_headers(
        bare.signed(SIGNER), method=bare.method, path=bare.path, body=bare.body, broker=bare.broker
    )


def test_an_administrator_is_recognised_by_key(made: House) -> None:
    with pytest.raises(PolicyError, match="is not an administrator's here"):
        recognise(made, request("list"), NOW)
    do(made, "add-administrator", name="ann", key=SIGNER_KEY)
    actor = recognise(made, request("list"), NOW)
    assert actor.name == "administrator ann"
    assert perform(made, "list", {}, actor).result["resources"] == []
    assert rules(made)[-1] == "read list"
    do(made, "remove-administrator", name="ann")
    with pytest.raises(PolicyError):
        recognise(made, request("list", b"\1" * 16), NOW)


def test_a_request_is_good_once_also_after_a_restart(made: House) -> None:
    do(made, "add-administrator", name="ann", key=SIGNER_KEY)
    perform(made, "list", {}, recognise(made, request("list"), NOW))
    for at in (made, House(made.directory)):
        with pytest.raises(VerifyError, match="replayed"):
            perform(at, "list", {}, recognise(at, request("list"), NOW + timedelta(seconds=59)))
    perform(made, "list", {}, recognise(made, request("list", b"\1" * 16), NOW))
    later = NOW + timedelta(seconds=181)  # what is too old anyway is forgotten
    perform(
        made, "list", {}, recognise(made, request("list", b"\2" * 16, time=int(later.timestamp())), later)
    )
    assert len(made.database.rows("SELECT * FROM nonce")) == 1


def test_what_failed_is_not_asked_again_either(made: House) -> None:
    do(made, "add-administrator", name="ann", key=SIGNER_KEY)
    with pytest.raises(ConfigError, match="does not exist"):
        perform(made, "delete", {"uri": URI}, recognise(made, request("delete"), NOW))
    put(made)
    with pytest.raises(VerifyError, match="replayed"):
        perform(made, "delete", {"uri": URI}, recognise(made, request("delete"), NOW))


@pytest.mark.parametrize("action", sorted(ACTIONS.keys() - READING))
def test_an_auditor_changes_nothing(made: House, action: str) -> None:
    do(made, "add-administrator", name="eve", key=SIGNER_KEY, role="auditor")
    actor = recognise(made, request(action), NOW)
    with pytest.raises(PolicyError, match=f"auditor eve: role auditor may not {action}"):
        perform(made, action, {}, actor)


@pytest.mark.parametrize("action", sorted(READING))
def test_an_auditor_reads(made: House, action: str) -> None:
    put(made)
    do(made, "add-administrator", name="eve", key=SIGNER_KEY, role="auditor")
    arguments = {"uri": URI} if action == "get-policy" else {}
    assert perform(made, action, arguments, recognise(made, request(action), NOW)).lines


def test_the_log_is_read_in_pages(made: House) -> None:
    for n in range(5):
        put(made, b"x", uri=f"kbs:///a/b/{n}")
    got = do(made, "audit", first=2, count=3)
    assert [json.loads(line)["n"] for line in got["lines"]] == [2, 3, 4] and got["last"] == 6


def test_a_put_replaces_the_kinds_given(made: House) -> None:
    put(made, policy=policy(), rego=ALLOW)
    put(made, b"next", policy=policy(vmpl=[1]))
    assert do(made, "get-policy", uri=URI)["rego"] == ALLOW


def test_what_is_not_there_is_not_revoked(made: House) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        do(made, "revoke", uri="kbs:///default/model/typo", epoch=1, reason="x")


def test_a_plain_secret_goes_on_above_what_was_revoked(made: House) -> None:
    put(made)
    do(made, "revoke", uri=URI, epoch=7, reason="leaked")
    do(made, "delete", uri=URI)
    assert put(made)["version"] == 8
    assert do(made, "rotate", uri=URI, random=32)["version"] == 9


def test_an_administrator_who_was_let_out_meanwhile_does_nothing(made: House) -> None:
    do(made, "add-administrator", name="ann", key=SIGNER_KEY)
    actor = recognise(made, request("list"), NOW)
    do(made, "remove-administrator", name="ann")
    with pytest.raises(PolicyError, match="is that no longer"):
        perform(made, "list", {}, actor)
