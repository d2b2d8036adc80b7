"""Mirrors sidecars/proxy/face/answers.py, legacy.py and attested.py: what a door shows, over a guest in the test."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecars.proxy.face import legacy
from sidecars.proxy.face.answers import KEPT, Answer, answer
from sidecars.proxy.face.boot import FRESH
from sidecars.proxy.routes import Destination, Route, destination
from strongroom.evidence.binding import Purpose, channel_challenge, receipt_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.dstack_envelope import Envelope
from strongroom.evidence.dstack_log import from_json as log_from_json
from strongroom.evidence.dstack_log import replay
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tdx import TDXQuote
from strongroom.host.door.refusal import Refusal
from strongroom.receipts import aci
from strongroom.receipts import legacy as signatures
from strongroom.receipts.keys import DoorKeys
from strongroom.receipts.log import SignedHead
from strongroom.verify.bundle import verify_bundle
from strongroom.wire.canonical import pack_json, parse_json, unb64u
from tests.fakes.composite import gpus
from tests.fakes.exchange import ENGINE, MODEL, events
from tests.fakes.face import FaceService
from tests.fakes.foreign import STAGES, House, HouseAgent
from tests.fakes.keysock import FakeTD, firmware
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, roots, silicon

NONCE = bytes(range(1, 33))
Work = Callable[[FaceService, HouseAgent], Awaitable[None]]


def with_door(directory: Path, work: Work, house: House | None = None) -> None:
    async def run() -> None:
        agent = HouseAgent(house or House(directory))
        await agent.start(directory / "evidence.sock")
        try:
            await work(await FaceService.make(directory), agent)
        finally:
            await agent.stop()

    asyncio.run(run())


async def got(service: FaceService, target: str) -> dict[str, Any]:
    found = await answer(service, destination("GET", target), service.asking())
    assert (found.status, found.content_type) == (200, "application/json")
    value = parse_json(found.body, "answer", max_bytes=4 << 20)
    assert isinstance(value, dict)
    return value


def test_every_answer_names_the_keyset(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        assert service.book.keyset is not None
        for target in ("/", "/healthz", "/v1/models", "/.well-known/strongroom", "/v1/attestation/report"):
            found = await answer(service, destination("GET", target), service.asking())
            assert found.headers["x-aci-version"] == "aci/1"
            assert found.headers["x-aci-keyset-digest"] == service.book.keyset.digest

    with_door(tmp_path, work)


@pytest.mark.parametrize(("state", "status"), [("open", 200), ("draining", 503), ("closed", 503)])
def test_health_is_whether_requests_are_taken(tmp_path: Path, state: str, status: int) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        service.state = state
        found = await answer(service, Destination(Route.HEALTH), service.asking())
        assert (found.status, json.loads(found.body)) == (status, {"status": state})

    with_door(tmp_path, work)


def test_receipts_and_usage_are_their_owner_s(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        ann = service.asking("ann")
        assert ann.tenant is not None
        witness = service.book.witness(
            id="ab" * 16, route=Route.CHAT, tenant=ann.tenant, received=b"{}", forwarded=b"{ }"
        )
        witness.delivered(b"{}")
        witness.close(True, f"chatcmpl-{'ab' * 16}")
        owned = [
            f"/v1/receipts/{'ab' * 16}",
            f"/v1/receipts/{'ab' * 16}?proof=1",
            f"/v1/signature/chatcmpl-{'ab' * 16}",
            f"/v1/signature/{'ab' * 16}?signing_algo=ed25519",
            f"/v1/aci/receipts/{'ab' * 16}",
        ]
        for target in owned:
            found = await answer(service, destination("GET", target), ann)
            assert isinstance(json.loads(found.body), dict) and found.status == 200
            for other in (service.asking("bob"), service.asking()):
                with pytest.raises(Refusal, match="404"):
                    await answer(service, destination("GET", target), other)
        usage = await answer(service, Destination(Route.USAGE), ann)
        assert "requests" in json.loads(usage.body)
        with pytest.raises(Refusal, match="404"):
            await answer(service, Destination(Route.USAGE), service.asking())
        head = SignedHead.from_json(await got(service, "/v1/receipts/log/head"))
        assert head.head.size == 1
        assert await got(service, "/v1/receipts/log/consistency?first=1&second=1")
        page = await answer(service, Destination(Route.PAGE), service.asking())
        assert b">1 receipt<" in page.body and head.head.root.hex().encode() in page.body

    with_door(tmp_path, work)


def test_models_and_what_is_not_asked_here(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        (model,) = (await got(service, "/v1/models"))["data"]
        assert model["id"] == MODEL.name and model["max_model_len"] == 4096
        service.max_model_len = None
        assert "max_model_len" not in (await got(service, "/v1/models"))["data"][0]
        for route in (Route.RECEIPT, Route.CHAT):
            with pytest.raises(Refusal, match="404"):
                await answer(service, Destination(route), service.asking())

    with_door(tmp_path, work)


def test_the_well_known_document_proves_its_receipt_key(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        value = await got(service, "/.well-known/strongroom")
        key = value["receipt_key"]
        not_before = datetime.fromtimestamp(key["not_before"], UTC)
        claims = verify_bundle(
            Bundle.from_json(key["bundle"]),
            purpose=Purpose.RECEIPT_KEY,
            challenge=receipt_challenge(not_before),
            key=unb64u(key["key"], "key"),
            roots=roots(silicon()),
            now=datetime.now(UTC),
        )
        machine = value["machine"]
        assert machine["measurement"] == claims.measurement.hex() == MEASUREMENT.hex()
        assert machine["committed"] == claims.host_data.hex() == HOST_DATA.hex()
        assert machine["simulated"] is True and machine["tee"] == "snp"
        assert (value["model"], value["engine"]) == (MODEL.to_json(), ENGINE.to_json())
        assert [stage["name"] for stage in value["boot"]["stages"]] == [*STAGES]
        head = SignedHead.from_json(value["log"])
        assert head.key == unb64u(value["keys"]["receipt"], "key") == unb64u(key["key"], "key")
        assert value["keys"]["tls_spki_sha256"] == sha256(service.tls.spki).hexdigest()
        assert (value["state"], value["version"]) == ("open", "strongroom/well-known/v1")

    with_door(tmp_path, work)


def test_with_a_nonce_it_speaks_for_the_connection(tmp_path: Path) -> None:
    async def work(service: FaceService, agent: HouseAgent) -> None:
        evidence = await got(service, f"/.well-known/strongroom/evidence?nonce={NONCE.hex()}")
        value = await got(service, f"/.well-known/strongroom?nonce={NONCE.hex()}")
        for channel in (evidence["channel"], value["channel"]):
            verify_bundle(
                Bundle.from_json(channel),
                purpose=Purpose.CHANNEL,
                challenge=channel_challenge(NONCE, bytes(31) + NONCE[:1]),
                key=service.tls.spki,
                roots=roots(silicon()),
                now=datetime.now(UTC),
            )
        assert evidence.keys() == {"channel", "receipt_key"} < value.keys()
        assert agent.asked.count(Purpose.CHANNEL) == 2

    with_door(tmp_path, work)


def test_what_strangers_look_at_is_made_once_a_second(tmp_path: Path) -> None:
    async def work(service: FaceService, agent: HouseAgent) -> None:
        async def seen(target: str) -> bytes:
            return (await answer(service, destination("GET", target), service.asking())).body

        for target in ("/", "/.well-known/strongroom"):
            first = await seen(target)
            service.max_model_len = 1 if service.max_model_len != 1 else 2
            assert await seen(target) == first
            service.now += KEPT
            assert await seen(target) != first
        agent.house.record.note(state="failed")
        service.now += KEPT
        assert b"failed" not in await seen("/.well-known/strongroom")  # the record is kept for longer
        service.now += FRESH
        assert b"failed" in await seen("/.well-known/strongroom")

    with_door(tmp_path, work)


def test_an_agent_that_is_silent_costs_the_evidence_and_nothing_else(tmp_path: Path) -> None:
    async def work(service: FaceService, agent: HouseAgent) -> None:
        agent.refusal = "not now"
        assert (await got(service, "/.well-known/strongroom"))["boot"] is None
        page = await answer(service, Destination(Route.PAGE), service.asking())
        assert (
            b"the machine&#x27;s agent does not answer" in page.body or b"agent does not answer" in page.body
        )
        for target in (
            f"/.well-known/strongroom/evidence?nonce={NONCE.hex()}",
            "/v1/attestation/report",
            "/v1/aci/attestation",
        ):
            with pytest.raises(Refusal) as refused:
                await got(service, target)
            assert (refused.value.status, refused.value.code) == (503, "evidence_unavailable")
            assert "not now" not in refused.value.message

    with_door(tmp_path, work)


def test_the_record_outlives_an_agent_that_went_silent(tmp_path: Path) -> None:
    async def work(service: FaceService, agent: HouseAgent) -> None:
        assert (await got(service, "/.well-known/strongroom"))["boot"]["state"] == "serving"
        agent.refusal, service.now = "not now", service.now + 2 * FRESH
        assert (await got(service, "/.well-known/strongroom"))["boot"]["state"] == "serving"

    with_door(tmp_path, work)


REPORT = "/v1/attestation/report"


@pytest.mark.parametrize("algorithm", ["", "ecdsa", "ed25519"])
@pytest.mark.parametrize("version", ["", "&version=1", "&version=2", "&include_tls_fingerprint=true"])
def test_a_report_as_clients_of_dstack_check_it(tmp_path: Path, algorithm: str, version: str) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        asked = f"&signing_algo={algorithm}" if algorithm else ""
        value = await got(service, f"{REPORT}?nonce={NONCE.hex()}{asked}{version}")
        (one,) = value.pop("all_attestations")
        assert one == value
        assert value["signing_algo"] == (algorithm or "ecdsa")
        data = bytes.fromhex(value["report_data"])
        key = bytes.fromhex(value["signing_address"].removeprefix("0x"))
        if version in ("", "&version=1"):
            assert data == key.ljust(32, b"\0") + NONCE
            assert "tls_cert_fingerprint" not in value
        else:
            spki = bytes.fromhex(value["tls_cert_fingerprint"])
            assert spki == sha256(service.tls.spki).digest()
            assert data == sha256(key + spki).digest() + NONCE
        assert SNPReport.parse(bytes.fromhex(value["snp_report"])).report_data == data
        envelope = Envelope.parse(bytes.fromhex(value["intel_quote"]))
        assert envelope.body.report_data == data and envelope.body.mr_td == MEASUREMENT
        log = log_from_json(value["event_log"])
        assert replay(log, 3).hex() == value["info"]["tcb_info"]["rtmr3"] == events().head.hex()
        assert json.loads(value["nvidia_payload"]) == {"nonce": NONCE.hex(), "evidence_list": [], "arch": ""}
        signed = signatures.sign(
            service.book.keys.receipt if algorithm == "ed25519" else service.book.keys.ethereum,
            request=bytes(32),
            response=bytes(32),
        )
        signatures.verify(
            signed, request=bytes(32), response=bytes(32), signing_address=value["signing_address"]
        )

    with_door(tmp_path, work)


def test_without_a_nonce_a_report_has_one_of_its_own(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        first, second = [(await got(service, REPORT))["request_nonce"] for _ in range(2)]
        assert first != second and len(bytes.fromhex(first)) == 32

    with_door(tmp_path, work)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        (f"?nonce={NONCE[:16].hex()}{'00' * 16}", 400, "bad_nonce"),
        (f"?nonce={'00' * 32}", 400, "bad_nonce"),
        ("?signing_address=" + "ab" * 20, 404, "not_found"),
        ("?signing_algo=ed25519&signing_address=0x" + "ab" * 32, 404, "not_found"),
    ],
)
def test_reports_that_are_refused(tmp_path: Path, query: str, status: int, code: str) -> None:
    async def work(service: FaceService, agent: HouseAgent) -> None:
        with pytest.raises(Refusal) as refused:
            await got(service, REPORT + query)
        assert (refused.value.status, refused.value.code) == (status, code)

    with_door(tmp_path, work)


def test_its_own_address_is_found_however_it_is_written(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        address = (await got(service, REPORT))["signing_address"]
        for written in (address, address.lower(), address.removeprefix("0x")):
            assert (await got(service, f"{REPORT}?signing_address={written}"))["signing_address"] == address

    with_door(tmp_path, work)


def test_the_gpus_answer_the_nonce_itself(tmp_path: Path) -> None:
    devices = gpus()
    switch = GPUEvidence("ls10", devices[0].certificates, b"of a switch")

    async def work(service: FaceService, agent: HouseAgent) -> None:
        value = await got(service, f"{REPORT}?nonce={NONCE.hex()}")
        payload = json.loads(value["nvidia_payload"])
        assert payload["nonce"] == NONCE.hex() and payload["arch"] == devices[0].kind.upper()
        assert len(payload["evidence_list"]) == len(devices)  # and not the switch
        assert agent.house.nonces == [NONCE]
        evidence = (await got(service, f"/v1/aci/attestation?nonce={NONCE.hex()}"))["attestation"]["evidence"]
        assert json.loads(evidence["nvidia_payload"]) == payload

    with_door(tmp_path, work, House(tmp_path, devices=(*devices, switch), gpus=True))


def test_gpus_that_may_not_answer_strangers_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    async def work(service: FaceService, agent: HouseAgent) -> None:
        value = await got(service, f"{REPORT}?nonce={NONCE.hex()}")
        assert value["nvidia_payload"] is None is value["all_attestations"][0]["nvidia_payload"]
        for query in ("", f"?nonce={NONCE.hex()}"):
            value = await got(service, f"/v1/aci/attestation{query}")
            assert value["attestation"]["evidence"]["nvidia_payload"] is None
        assert agent.house.nonces == []

    log = EventLog(
        tuple(
            Event("gpu", pack_json({"count": 2})) if event.name == "gpu" else event
            for event in events().events
        )
    )
    with_door(tmp_path, work, House(tmp_path, devices=gpus(), log=log))


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("target", ["/v1/attestation/report", "/v1/aci/attestation"])
def test_evidence_for_other_keys_is_not_handed_on(tmp_path: Path, target: str) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        with pytest.raises(Refusal) as refused:
            await got(service, target)
        assert (refused.value.status, refused.value.code) == (503, "evidence_unavailable")

    with_door(tmp_path, work, House(tmp_path, keys=DoorKeys.from_secret(bytes(32))))


@pytest.mark.parametrize("nonce", [None, NONCE])
def test_an_attestation_as_clients_of_aci_check_it(tmp_path: Path, nonce: bytes | None) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        query = "" if nonce is None else f"?nonce={nonce.hex()}"
        value = await got(service, f"/v1/aci/attestation{query}")
        said, digest = value["attestation"], value["workload_keyset_digest"]
        packed = json.dumps(said["workload_keyset"], sort_keys=True, separators=(",", ":")).encode()
        assert digest == f"sha256:{sha256(packed).hexdigest()}"
        text = {
            "keyset_digest": digest,
            "nonce": None if nonce is None else nonce.hex(),
            "purpose": "aci.report_data.v1",
        }
        statement = json.dumps(text, separators=(",", ":")).encode()
        assert said["report_data"] == (sha256(statement).digest() + bytes(32)).hex()
        report = SNPReport.parse(bytes.fromhex(said["evidence"]["snp_report"]))
        assert report.report_data.hex() == said["report_data"] == said["evidence"]["quote_report_data"]
        assert said["tee_type"] == "sev_snp"
        (tls,) = said["workload_keyset"]["tls_public_keys"]
        assert tls["spki_sha256"] == sha256(service.tls.spki).hexdigest()
        (signing,) = said["workload_keyset"]["receipt_signing_keys"]
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signing["public_key"]))
        assert replay(log_from_json(json.loads(said["evidence"]["event_log"])), 3) == events().head
        assert value["service_capabilities"]["serving"] == "direct"
        assert aci.report_data(digest, text["nonce"]).hex() == said["report_data"]

    with_door(tmp_path, work)


def test_no_attestation_of_a_keyset_that_programs_could_have_made(tmp_path: Path) -> None:
    async def work(service: FaceService, agent: HouseAgent) -> None:
        agent.house.programs_quote = True
        with pytest.raises(Refusal, match="503"):
            await got(service, "/v1/aci/attestation")
        assert (await got(service, REPORT))["tee"] == "snp"

    with_door(tmp_path, work)


def test_a_connection_of_before_the_renewal_is_told_to_come_again(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        service.book.use_tls(replace(service.tls, spki=b"the next"))
        with pytest.raises(Refusal, match="503 renewed") as refused:
            await got(service, "/v1/aci/attestation")
        assert refused.value.last

    with_door(tmp_path, work)


def test_azure_has_no_room_for_others_report_data(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        identity = service.book.identity
        service.book.identity = replace(identity, evidence=replace(identity.evidence, tee="azure-snp"))
        for target in (REPORT, "/v1/aci/attestation"):
            with pytest.raises(Refusal, match="501 not_supported"):
                await got(service, target)

    with_door(tmp_path, work)


@pytest.mark.parametrize("follows", [True, False])
def test_a_td_s_quote_is_handed_on_as_it_is(tmp_path: Path, follows: bool) -> None:
    """Where register 3 does not follow our log, the log that is shown still gives every register."""

    async def work(service: FaceService, _: HouseAgent) -> None:
        value = await got(service, f"{REPORT}?nonce={NONCE.hex()}")
        quote = TDXQuote.parse(bytes.fromhex(value["intel_quote"]))
        assert quote.body.report_data.hex() == value["report_data"]
        assert "snp_report" not in value
        tcb = value["info"]["tcb_info"]
        assert [tcb[f"rtmr{n}"] for n in range(4)] == [register.hex() for register in quote.body.rtmrs]
        log = log_from_json(value["event_log"])
        assert [entry for entry in log if entry.imr < 3] == [*firmware()]
        assert [replay(log, n) for n in range(4)] == [*quote.body.rtmrs]
        assert (quote.body.rtmr3 == events().head) is follows
        aci_value = await got(service, "/v1/aci/attestation")
        assert aci_value["attestation"]["tee_type"] == "tdx"

    with_door(tmp_path, work, House(tmp_path, tsm=FakeTD(), firmware=firmware(), follows=follows))


def test_many_strangers_wait_or_are_sent_away(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        results = await asyncio.gather(
            *(answer(service, destination("GET", REPORT), service.asking()) for _ in range(20)),
            return_exceptions=True,
        )
        refused = [one for one in results if isinstance(one, Refusal)]
        assert {one.status for one in refused} == {429} and len(refused) == 12
        assert sum(isinstance(one, Answer) for one in results) == 8

    with_door(tmp_path, work)


def test_the_public_key_in_a_report_is_the_signing_one(tmp_path: Path) -> None:
    async def work(service: FaceService, _: HouseAgent) -> None:
        keys = service.book.keys
        assert len(legacy.public_key(keys.ethereum)) == 128
        assert legacy.public_key(keys.receipt) == keys.receipt.public_key().public_bytes_raw().hex()

    with_door(tmp_path, work)
