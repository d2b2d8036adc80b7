"""Mirrors guest/evidence.py and guest/attester.py, over the simulated silicon's own minting."""

import asyncio
import hashlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from guest import evidence
from guest.attester import Attester, Launch
from guest.machine.rtmr import RTMR
from guest.machine.tsm import TSMReport
from guest.stages.measure import _check_committed
from strongroom.broker.exchange import Collect
from strongroom.broker.messages import Challenge
from strongroom.errors import FormatError, MachineError, PolicyError
from strongroom.evidence.binding import MAGIC, Purpose, is_reserved, kbs_report_data
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tdx import TDXQuote
from strongroom.keys.jwk import pack_jwk
from strongroom.verify.bundle import verify_bundle
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json
from strongroom.wire.framing import FrameReader, frame
from tests.fakes.composite import GPU, gpus
from tests.fakes.intel import BODY, Platform
from tests.fakes.silicon import roots, silicon

KEY = b"0" * 91
CHALLENGE = bytes(range(48))
SHA256 = hashlib.sha256(b"userdata").digest()


class FakeTSM:
    """guest.machine.tsm.TSM, minting in memory."""

    def __init__(self) -> None:
        self.chip = silicon()
        self.asked: list[bytes] = []

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        self.asked.append(report_data)
        return TSMReport(self.chip.report(report_data), self.chip.certificates(), "sev_guest")


@pytest.fixture
def tsm() -> FakeTSM:
    return FakeTSM()


@pytest.fixture
def attester(tsm: FakeTSM) -> Attester:
    return Attester(tsm)


def request(**changes: JSON) -> bytes:
    value: dict[str, JSON] = {"purpose": "ra-tls", "challenge": b64u(CHALLENGE), "key": b64u(KEY), **changes}
    return pack_json(value)


def test_what_is_for_others_goes_elsewhere(attester: Attester, tsm: FakeTSM) -> None:
    async def others(unit: str, question: Mapping[str, JSON]) -> dict[str, JSON]:
        return {"unit": unit, "said": question["purpose"]}

    for purpose in ("dstack-report", "aci-report", "boot-record"):
        asked = evidence.reply(attester, "a.service", pack_json({"purpose": purpose}), others)
        assert asyncio.run(asked) == {"unit": "a.service", "said": purpose}
    wrongs: list[JSON] = [["boot-record"], "ra-tls", "x", 1, None]
    for wrong in wrongs:
        with pytest.raises((PolicyError, FormatError)):
            asyncio.run(evidence.reply(attester, "a.service", request(purpose=wrong), others))
    with pytest.raises(FormatError):  # where nobody answers for others
        asyncio.run(evidence.reply(attester, evidence.DOOR_UNIT, pack_json({"purpose": "boot-record"})))
    assert tsm.asked == []


def test_evidence_commits_to_the_log(attester: Attester, tsm: FakeTSM) -> None:
    asyncio.run(attester.extend("userdata", bytes(32)))
    bundle = asyncio.run(attester.evidence(purpose=Purpose.RA_TLS, challenge=CHALLENGE, key=KEY))
    claims = verify_bundle(
        bundle,
        purpose=Purpose.RA_TLS,
        challenge=CHALLENGE,
        key=KEY,
        roots=roots(tsm.chip),
        now=datetime.now(UTC),
    )
    assert claims.events is not None
    assert claims.events.find("userdata") == bytes(32)


def asked(nonce: str = "n" * 44, **options: Any) -> Collect:
    return Collect(
        Challenge(nonce, **options), pack_jwk(ec.derive_private_key(3, ec.SECP256R1()).public_key())
    )


def test_the_broker_gets_its_own_shape_and_no_other(attester: Attester, tsm: FakeTSM) -> None:
    evidence = asyncio.run(attester.for_broker(asked()))
    assert (evidence.primary.tee, evidence.gpus, evidence.events) == ("snp", (), None)
    (data,) = tsm.asked
    assert data == kbs_report_data(asked().digest()) and is_reserved(data)

    class Other(Collect):
        def digest(self, *_: object) -> bytes:
            return MAGIC + bytes(range(48))

    collect = Other(Challenge("n" * 44, "sha512"), {})
    for name, why in (("sha512", "of our own evidence's shape"), ("sha384", "digest is 64 bytes, want 48")):
        collect.hash = name
        with pytest.raises((PolicyError, FormatError), match=why):
            asyncio.run(attester.for_broker(collect))
    assert len(tsm.asked) == 1


def test_the_broker_gets_the_log_of_the_moment_where_it_asks(attester: Attester) -> None:
    asyncio.run(attester.extend("userdata", bytes(32)))
    wanted = asked(takes_events=True)
    evidence = asyncio.run(attester.for_broker(wanted))
    assert evidence.events == attester.log
    report = SNPReport.parse(evidence.primary.report)
    assert report.report_data == kbs_report_data(wanted.digest((), attester.log))


def test_the_broker_s_devices_answer_the_nonce_of_the_session() -> None:
    nonces: list[bytes] = []

    async def devices(nonce: bytes) -> tuple[GPUEvidence, ...]:
        nonces.append(nonce)
        return gpus([GPU], nonce=nonce)

    wanted = asked()
    evidence = asyncio.run(Attester(FakeTDX(), devices=devices).for_broker(wanted))
    assert nonces == [wanted.device_nonce] and len(evidence.gpus) == 1
    quote = TDXQuote.parse(evidence.primary.report)
    assert quote.body.report_data == kbs_report_data(wanted.digest(evidence.gpus))


def test_a_broker_knows_each_machine_by_a_name(tsm: FakeTSM) -> None:
    assert asyncio.run(Attester(tsm).broker_tee()) == "snp"
    assert asyncio.run(Attester(FakeTDX()).broker_tee()) == "tdx"
    assert asyncio.run(Attester(None).broker_tee()) == "tpm"
    for call in (Attester(None).launch(), Attester(None).for_broker(asked())):
        with pytest.raises(MachineError, match="attester: "):
            asyncio.run(call)


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("unit", "purpose"),
    [
        ("strongroom-engine.service", "ra-tls"),
        ("ssh.service", "channel"),
        ("strongroom-proxy.service", "boot"),
        ("strongroom-proxy.service", "application"),
        ("strongroom-proxy.service", "nonsense"),
    ],
)
def test_only_the_door_and_only_for_its_purposes(
    attester: Attester, tsm: FakeTSM, unit: str, purpose: str
) -> None:
    with pytest.raises(PolicyError, match=f"{unit} may not ask"):
        asyncio.run(evidence.reply(attester, unit, request(purpose=purpose)))
    assert not tsm.asked


def test_the_door_gets_a_bundle_over_what_it_named(attester: Attester) -> None:
    answer = asyncio.run(evidence.reply(attester, "strongroom-proxy.service", request()))
    bundle = Bundle.from_json(answer["bundle"])
    assert (bundle.purpose, bundle.challenge) == (Purpose.RA_TLS, CHALLENGE)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: {**v, "report_data": "AA"},  # computed here, never taken from the peer
        lambda v: {k: x for k, x in v.items() if k != "key"},
        lambda v: {**v, "challenge": "not base64!"},
        lambda v: {**v, "challenge": ""},
        lambda v: {**v, "key": ""},
    ],
)
def test_malformed_requests_get_no_evidence(
    attester: Attester, tsm: FakeTSM, change: Callable[[dict[str, JSON]], dict[str, JSON]]
) -> None:
    value = parse_json(request(), "request")
    assert isinstance(value, dict)
    with pytest.raises((FormatError, PolicyError)):
        asyncio.run(evidence.reply(attester, "strongroom-proxy.service", pack_json(change(value))))
    assert not tsm.asked


def test_a_process_outside_our_units_is_told_no(
    attester: Attester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "unit_of", lambda connection: "ssh.service")

    async def exchange() -> bytes:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "e.sock"))
        listener.listen()
        task = asyncio.create_task(evidence.serve(listener, attester))
        reader, writer = await asyncio.open_unix_connection(tmp_path / "e.sock")
        writer.write(frame(request()))
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        task.cancel()
        listener.close()
        return answer

    (answer,) = FrameReader().feed(asyncio.run(exchange()))
    assert parse_json(answer, "answer") == {
        "error": "evidence request: ssh.service may not ask for purpose 'ra-tls'"
    }


class FakeTDX:
    """guest.machine.tsm.TSM of an Intel machine."""

    def __init__(self, mr_config_id: bytes = bytes(48)) -> None:
        self.mr_config_id = mr_config_id

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        platform = Platform(body=replace(BODY, report_data=report_data, mr_config_id=self.mr_config_id))
        return TSMReport(platform.quote().pack(), b"", "tdx_guest")


class Registers(RTMR):
    """One register, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.value = bytes(48)

    def extend(self, digest: bytes, index: int = 3) -> None:
        self.value = hashlib.sha384(self.value + digest).digest()


def test_the_register_of_an_intel_machine_is_the_head_of_the_log() -> None:
    rtmr = Registers()
    attester = Attester(FakeTDX(), rtmr=rtmr)
    for name in ("userdata", "keys", "boot-done"):
        asyncio.run(attester.extend(name, name.encode()))
        assert rtmr.value == attester.log.head
    bundle = asyncio.run(attester.evidence(purpose=Purpose.BOOT, challenge=CHALLENGE, key=KEY))
    assert (bundle.tee, bundle.certificates) == ("tdx", b"")
    assert TDXQuote.parse(bundle.report).body.report_data.startswith(b"strongroom/rd/v1")


def test_zeros_behind_a_quote_are_not_carried() -> None:
    class Padding(FakeTDX):
        def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
            made = super().report(report_data)
            return replace(made, outblob=made.outblob + bytes(300))

    bundle = asyncio.run(Attester(Padding()).evidence(purpose=Purpose.BOOT, challenge=CHALLENGE, key=KEY))
    TDXQuote.parse(bundle.report, trailing="none")


def test_what_was_launched_is_told_in_the_same_words_on_both(tsm: FakeTSM) -> None:
    amd = asyncio.run(Attester(tsm).launch())
    assert (amd.tee, amd.measurement, amd.committed) == ("snp", tsm.chip.measurement, tsm.chip.host_data)
    intel = asyncio.run(Attester(FakeTDX(mr_config_id=b"c" * 48)).launch())
    assert (intel.tee, intel.measurement, intel.committed) == ("tdx", BODY.mr_td, b"c" * 48)


@pytest.mark.guarantee("G2")
@pytest.mark.parametrize(
    ("committed", "accepted"),
    [
        (bytes(32), True),
        (bytes(48), True),
        (SHA256, True),
        (SHA256 + bytes(16), True),
        (SHA256[::-1], False),
        (SHA256[::-1] + bytes(16), False),
        (SHA256 + b"\1" * 16, False),
    ],
)
def test_a_launcher_that_committed_to_other_userdata_is_refused(committed: bytes, accepted: bool) -> None:
    launch = Launch(tee="tdx" if len(committed) == 48 else "snp", measurement=bytes(48), committed=committed)
    if accepted:
        return _check_committed(SHA256, launch)
    with pytest.raises(PolicyError, match=r"but the guest was launched with (mr_config_id|host_data)"):
        _check_committed(SHA256, launch)
    return None
