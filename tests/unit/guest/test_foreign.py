"""Mirrors guest/foreign.py and strongroom/host/foreign.py: what the door gets for clients of other people's forms."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest

from guest import config
from guest.foreign import LONGER_THAN, programs_quote, shown
from guest.keysock.plan import SHORT
from guest.stages.serve import UNITS
from guest.userdata import Userdata
from strongroom.errors import FormatError, MachineError, PolicyError, ProtocolError, TransportError
from strongroom.evidence.binding import is_reserved, kbs_digest, kbs_report_data
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.snp import SNPReport
from strongroom.host.foreign import (
    Foreign,
    ForeignReport,
    aci_question,
    dstack_question,
    request_boot,
    request_report,
)
from strongroom.receipts import aci, legacy
from strongroom.receipts.keys import DoorKeys
from strongroom.wire.canonical import JSON, b64u
from tests.fakes.exchange import events
from tests.fakes.foreign import KEYS, STAGES, House, HouseAgent
from tests.fakes.keysock import FakeTSM, firmware

_T = TypeVar("_T")
ADDRESSES = {legacy.ECDSA: legacy.address(KEYS.ethereum), legacy.ED25519: legacy.address(KEYS.receipt)}
NONCE = bytes(range(1, 33))
SPKI = sha256(b"an SPKI").digest()
KEYSET = aci.Keyset(
    subject=None,
    not_after=1795176000,
    receipt_key_id="receipt",
    receipt_key=KEYS.receipt.public_key().public_bytes_raw(),
    tls=aci.TLSKey(spki_sha256=SPKI, domain="llm.example"),
)
GPU = GPUEvidence("hopper", b"certificates", b"report")


class Broken(FakeTSM):
    def report(self, report_data: bytes, *, privlevel: int | None = None) -> Any:
        raise AssertionError("the silicon was asked")


def reported(house: House, question: dict[str, JSON]) -> ForeignReport:
    return ForeignReport.from_json(asyncio.run(house.reply(question)))


@pytest.mark.parametrize("algorithm", ADDRESSES)
@pytest.mark.parametrize("spki", [None, SPKI])
def test_a_dstack_report_speaks_for_key_and_nonce(tmp_path: Path, spki: bytes | None, algorithm: str) -> None:
    house = House(tmp_path, devices=(GPU,), firmware=firmware(), gpus=True)
    made = reported(house, dstack_question(signing_algo=algorithm, nonce=NONCE, tls_spki_sha256=spki))
    wanted = legacy.report_data(ADDRESSES[algorithm], nonce=NONCE, tls_spki_sha256=spki)
    assert made.report_data == wanted
    assert SNPReport.parse(made.report).report_data == made.report_data
    assert (made.tee, made.events, made.firmware, made.devices) == ("snp", events(), firmware(), (GPU,))
    assert house.nonces == [NONCE]
    assert not is_reserved(made.report_data) and len(made.report_data.rstrip(b"\0")) > SHORT


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("zeros", range(33))
def test_no_nonce_makes_a_report_that_programs_or_the_broker_could_have(tmp_path: Path, zeros: int) -> None:
    """A stranger chooses it: with enough zeros at its end the rest would be bytes that anybody here may choose."""
    nonce = NONCE[: 32 - zeros] + bytes(zeros)
    question = dstack_question(signing_algo="ed25519", nonce=nonce, tls_spki_sha256=None)
    if zeros < 16:
        assert len(reported(House(tmp_path), question).report_data.rstrip(b"\0")) == 64 - zeros
        return
    with pytest.raises(PolicyError, match="ends in 16 zero bytes"):
        asyncio.run(House(tmp_path, tsm=Broken()).reply(question))


@pytest.mark.guarantee("G8")
def test_a_door_that_was_taken_over_names_no_key_and_chooses_no_report_data(tmp_path: Path) -> None:
    """Neither a digest of the key broker's that fills all 64 bytes, nor a stranger's key, nor its keyset."""
    broker = kbs_report_data(kbs_digest({"nonce": "x", "tee-pubkey": {}}, "sha512"), "sha512")
    assert len(broker.rstrip(b"\0")) > LONGER_THAN and not is_reserved(broker)
    dstack, aci_one = QUESTIONS["dstack"], QUESTIONS["aci"]
    strangers = replace(KEYSET, receipt_key=bytes(range(32)))
    asked: list[dict[str, JSON]] = [
        {
            "purpose": str(Foreign.DSTACK),
            "signing_address": broker[:32].hex(),
            "nonce": b64u(broker[32:]),
            "tls_key": None,
        },
        {**dstack, "signing_address": broker[:32].hex()},
        {**dstack, "signing_algo": broker[:32].hex()},
        {**dstack, "tls_spki_sha256": b64u(SPKI + NONCE)},
        {"purpose": str(Foreign.ACI), "keyset_digest": strangers.digest, "nonce": b64u(NONCE)},
        {**aci_one, "receipt_key": strangers.receipt_key.hex()},
        {**aci_one, "e2ee_public_keys": []},
    ]
    for question in asked:
        with pytest.raises(FormatError):
            asyncio.run(House(tmp_path, tsm=Broken()).reply(question))
    # what it may choose is the nonce, and no report carries that of another boot's keys
    made = reported(House(tmp_path), {**dstack, "nonce": b64u(broker[32:])}).report_data
    assert made[:32].hex() == ADDRESSES["ed25519"] and made != broker
    other = House(tmp_path, keys=DoorKeys.from_secret(bytes(32)))
    assert reported(other, dstack).report_data[:32] != made[:32]
    assert reported(other, aci_question(strangers, nonce=NONCE)).report_data != aci.report_data(
        strangers.digest, NONCE.hex()
    )


@pytest.mark.parametrize("nonce", [None, NONCE])
def test_an_aci_report_speaks_for_a_keyset(tmp_path: Path, nonce: bytes | None) -> None:
    house = House(tmp_path, devices=(GPU,), gpus=True)
    for keyset in (KEYSET, replace(KEYSET, subject="s", tls=aci.TLSKey(spki_sha256=SPKI))):
        made = reported(house, aci_question(keyset, nonce=nonce))
        assert made.report_data == aci.report_data(keyset.digest, None if nonce is None else nonce.hex())
        assert made.devices == (None if nonce is None else (GPU,))
        assert not is_reserved(made.report_data)


def test_a_keyset_of_more_than_the_agent_knows_is_not_asked_for() -> None:
    key = aci.EncryptionKey(key_id="k", algo=aci.X25519, public_key=bytes(32))
    for keyset in (replace(KEYSET, tls=None), replace(KEYSET, encryption=key)):
        with pytest.raises(FormatError, match="want a TLS key and no encryption key"):
            aci_question(keyset, nonce=None)


@pytest.mark.parametrize("name", ["dstack", "aci"])
def test_gpus_answer_a_stranger_s_nonce_only_where_userdata_lets_them(tmp_path: Path, name: str) -> None:
    house = House(tmp_path, devices=(GPU,))
    made = reported(house, QUESTIONS[name])
    assert made.devices is None and house.nonces == []
    assert ForeignReport.from_json(made.to_json()) == made
    house.foreign.gpus = True
    assert reported(house, QUESTIONS[name]).devices == (GPU,) and house.nonces == [NONCE]


def test_no_keyset_where_programs_may_choose_as_many_bytes(tmp_path: Path) -> None:
    house = House(tmp_path, tsm=Broken())
    house.programs_quote = True
    with pytest.raises(PolicyError, match="userdata lets programs have evidence of this shape"):
        asyncio.run(house.reply(aci_question(KEYSET, nonce=NONCE)))


QUESTIONS: dict[str, dict[str, JSON]] = {
    "dstack": dstack_question(signing_algo="ed25519", nonce=NONCE, tls_spki_sha256=None),
    "aci": aci_question(KEYSET, nonce=NONCE),
    "boot": {"purpose": str(Foreign.BOOT)},
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("unit", ["strongroom-receive.service", "strongroom-keysock.service", "api.service"])
def test_nobody_but_the_door_may_ask(tmp_path: Path, name: str, unit: str) -> None:
    with pytest.raises(PolicyError, match=f"{unit} may not ask"):
        asyncio.run(House(tmp_path, tsm=Broken()).reply(QUESTIONS[name], unit))


_BYTES = {"nonce", "tls_spki_sha256"}


def changed(question: dict[str, JSON]) -> list[dict[str, JSON]]:
    """Each member left out, and each of another type; and one more."""
    members = [name for name in question if name != "purpose"]
    wrongs: list[JSON] = [True, [], {}]
    return [
        {**question, "report_data": b64u(bytes(64))},
        *({name: value for name, value in question.items() if name != gone} for gone in members),
        *({**question, name: wrong} for name in members for wrong in wrongs),
        *(
            {**question, name: wrong}
            for name in members
            if name in _BYTES
            for wrong in ("!", b64u(NONCE[:31]))
        ),
    ]


@pytest.mark.parametrize(
    "question", [wrong for name in ("dstack", "aci", "boot") for wrong in changed(QUESTIONS[name])]
)
def test_a_question_has_its_members_and_no_other(tmp_path: Path, question: dict[str, JSON]) -> None:
    """Above all none that would be report data."""
    with pytest.raises(FormatError):
        asyncio.run(House(tmp_path, tsm=Broken()).reply(question))


def test_the_boot_record_is_shown_without_what_is_nobody_s_business(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.record.content["stages"].append({"name": "x", "outcome": "failed", "ms": 1, "error": "a sentence"})
    house.record.note(error="another", init_data={"digest": "00"})
    boot = asyncio.run(house.reply(QUESTIONS["boot"]))["boot"]
    assert isinstance(boot, dict)
    assert boot["state"] == "serving" and boot["gpus"] == 0
    assert isinstance(stages := boot["stages"], list)
    assert [stage["name"] for stage in stages if isinstance(stage, dict)] == [*STAGES, "x"]
    assert not {"error", "keys", "init_data"} & boot.keys()
    assert "sentence" not in str(boot)
    assert "error" in house.record.content["stages"][-1]  # the record itself is as it was


def test_of_all_units_those_of_ours_are_shown_and_no_status(tmp_path: Path) -> None:
    """State volumes are named by userdata, and their status is a sentence."""
    house = House(tmp_path)
    assert "units" not in shown(house.record.content, UNITS)
    unit: dict[str, JSON] = {"state": "active", "restarts": 1}
    told: dict[str, JSON] = dict.fromkeys(UNITS, unit)
    status = "payroll: block 7 is not authentic"
    volume: dict[str, JSON] = {"strongroom-volume@payroll.service": {**unit, "status": status}}
    house.record.note(units={**told, **volume})
    assert asyncio.run(house.reply(QUESTIONS["boot"]))["boot"] == {
        **shown({**house.record.content, "units": {}}, ()),
        "units": told,
    }
    house.record.note(units={UNITS[0]: {**unit, "status": "a sentence"}, UNITS[1]: "odd"})
    assert shown(house.record.content, UNITS)["units"] == {UNITS[0]: unit}
    assert "payroll" not in str(shown({"units": volume}, UNITS))


@pytest.mark.parametrize(
    ("section", "may"),
    [
        ("", False),
        ("keys: {root: ephemeral, rules: [{unit: a.service, methods: [GetKey, Sign, Info]}]}", False),
        ("keys: {root: ephemeral, rules: [{unit: a.service}, {uid: 1000, methods: [Attest]}]}", True),
        ("keys: {root: ephemeral, rules: [{unit: a.service, methods: [GetQuote]}]}", True),
        ("keys: {root: ephemeral, rules: [{uid: 1, methods: [Sign], raw_quote: true}]}", True),
        ("coco: {rules: [{uid: 1, resources: [a/b/c]}]}", True),
    ],
)
def test_which_userdata_lets_programs_quote(section: str, may: bool) -> None:
    raw = f"""#cloud-config
strongroom:
  version: 1
  broker: {{url: "https://broker.example:8443", spki_sha256: "{"0" * 64}"}}
  model: {{name: m, source: /srv/model, key: "kbs:///default/model/m"}}
  door: {{names: [llm.example]}}
  gpus: 0
  {section}
"""
    assert programs_quote(config.parse(Userdata.of(raw.encode()))) is may


def over_a_socket(
    house: House,
    ask: Coroutine[Any, Any, _T],
    folder: Path,
    *,
    refusal: str = "",
    agent: type[HouseAgent] = HouseAgent,
) -> _T:
    async def run() -> _T:
        far = agent(house)
        far.refusal = refusal or None
        await far.start(folder / "evidence.sock")
        try:
            return await ask
        finally:
            await far.stop()

    return asyncio.run(run())


def test_over_the_socket(tmp_path: Path) -> None:
    path, house = tmp_path / "evidence.sock", House(tmp_path, devices=(GPU,), firmware=firmware(), gpus=True)
    made = over_a_socket(house, request_report(path, QUESTIONS["dstack"]), tmp_path)
    assert made.devices == (GPU,) and ForeignReport.from_json(made.to_json()) == made
    boot = over_a_socket(house, request_boot(path), tmp_path)
    assert boot["words"] == house.record.content["words"]
    with pytest.raises(MachineError, match="refused: no"):
        over_a_socket(house, request_report(path, QUESTIONS["aci"]), tmp_path, refusal="no\n")
    house.record.note(state="failed")
    assert over_a_socket(house, request_boot(path), tmp_path)["state"] == "failed"


@pytest.mark.parametrize("answer", [{}, {"boot": 1}, {"boot": {}, "more": 1}, [], {"bundle": {}}])
def test_an_answer_that_is_no_record(tmp_path: Path, answer: JSON) -> None:
    class Odd(HouseAgent):
        async def _said(self, question: bytes) -> JSON:
            return answer

    with pytest.raises(ProtocolError, match="answer is no"):
        over_a_socket(House(tmp_path), request_boot(tmp_path / "evidence.sock"), tmp_path, agent=Odd)


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="evidence socket"):
        asyncio.run(request_boot(tmp_path / "none"))


@pytest.mark.parametrize(
    "change", ["tee", "report", "report_data", "devices", "device", "events", "firmware", "more", "less"]
)
def test_an_answer_that_is_none(tmp_path: Path, change: str) -> None:
    value = reported(House(tmp_path), QUESTIONS["dstack"]).to_json()
    match change:
        case "more":
            value["x"] = 1
        case "less":
            del value["events"]
        case "report_data":
            value["report_data"] = b64u(bytes(63))
        case "devices":
            value["devices"] = [GPU.to_json()] * 17
        case "device":
            value["devices"] = [None]
        case _:
            value[change] = 1
    with pytest.raises(FormatError):
        ForeignReport.from_json(value)
