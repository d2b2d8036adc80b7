"""Mirrors guest/keysock/dstack.py and quotes.py: quotes and evidence, over which bytes and for whose key."""

from datetime import UTC, datetime
from hashlib import sha256, sha384, sha512
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from guest.keysock.rights import Method, Rights, Rule
from strongroom.errors import FormatError
from strongroom.evidence.binding import Purpose, application_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.dstack_attestation import SNP, TDX, Attestation
from strongroom.evidence.dstack_envelope import Envelope
from strongroom.evidence.dstack_log import parse as parse_log
from strongroom.evidence.dstack_log import replay
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tdx import TDXQuote
from strongroom.ratls.dstack import identity, report_data, require_bound
from strongroom.verify.bundle import verify_bundle
from strongroom.wire.canonical import b64u
from strongroom.wire.messagepack import parse_messagepack
from tests.fakes.composite import collateral, roots
from tests.fakes.keysock import USERDATA, Keysock, served
from tests.unit.guest.keysock.test_dstack import Each, ask, certificates, refused


@pytest.mark.guarantee("G8")
def test_evidence_in_a_certificate_speaks_for_its_key(each: Each) -> None:
    name, keysock = each
    answer = ask(keysock, "/GetTlsKey", subject="a", usage_ra_tls=True, with_app_info=True)
    leaf = certificates(answer)[0]
    if name == "vtpm":
        spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        extension = leaf.extensions.get_extension_for_oid(
            x509.ObjectIdentifier("1.3.6.1.4.1.62397.1.8")
        ).value
        assert isinstance(extension, x509.UnrecognizedExtension)
        packed = extension.value[extension.value.index(b"\x83\xa7version") :]
        check_bundle(keysock, packed, report_data(spki), key=spki)
        return
    found = identity(leaf.public_bytes(Encoding.DER))
    assert found.app_info is not None and found.usage == "app:custom"
    assert found.app_info.compose_hash == sha256(USERDATA.encode()).digest()
    require_bound(leaf.public_bytes(Encoding.DER))


def check_bundle(keysock: Keysock, packed: bytes, data: bytes, key: bytes = b"") -> None:
    """That an attestation from behind a paravisor verifies, for these bytes and nobody else's caller."""
    value: Any = parse_messagepack(packed, "attestation", max_bytes=1 << 20, max_depth=8)
    assert value["platform"]["kind"] == "strongroom" and bytes(value["stack"]["data"]["report_data"]) == data
    bundle = Bundle.parse_cbor(value["platform"]["data"]["bundle"])
    claims = verify_bundle(
        bundle,
        purpose=Purpose.APPLICATION,
        challenge=application_challenge("uid-0", data),
        key=key,
        roots=roots(),
        now=datetime.now(UTC),
        collateral=collateral(),
    )
    assert claims.events == keysock.log


@pytest.mark.parametrize("data", [b"\1", bytes(range(1, 33)), bytes(range(1, 65)), b""])
def test_quotes_carry_the_callers_bytes(each: Each, data: bytes) -> None:
    name, keysock = each
    answer = ask(keysock, "/GetQuote", report_data="0x" + data.hex())
    wanted = data.ljust(64, b"\0")
    assert bytes.fromhex(answer["report_data"]) == wanted
    quote, log = bytes.fromhex(answer["quote"]), parse_log(answer["event_log"])
    assert (quote[568:632], quote[520:568]) == (wanted, keysock.log.head)
    for n, offset in enumerate((376, 424, 472, 520)):
        assert replay(log, n) == quote[offset : offset + 48]
    packed = bytes.fromhex(ask(keysock, "/Attest", report_data=data.hex())["attestation"])
    if name == "tdx":
        assert TDXQuote.parse(quote).body.report_data == wanted
        assert "attestation" not in answer
        with pytest.raises(FormatError):
            Envelope.parse(quote)
    else:
        envelope = Envelope.parse(quote)
        assert envelope.attestation == bytes.fromhex(answer["attestation"])
        with pytest.raises(FormatError):
            TDXQuote.parse(quote)
    if name == "vtpm":
        check_bundle(keysock, packed, wanted)
        return
    attestation = Attestation.parse(packed)
    assert attestation.report_data == wanted
    if isinstance(attestation.platform, SNP):
        assert SNPReport.parse(attestation.platform.report).report_data == wanted
        assert len(attestation.platform.cert_chain) == 3
    else:
        assert isinstance(attestation.platform, TDX)
        assert replay(attestation.platform.event_log, 3) == keysock.log.head
    v1 = ask(keysock, "/v1/Attest", report_data=data.hex(), include_boottime_gpu_evidence=True)
    assert Attestation.parse(bytes.fromhex(v1["attestation"])).report_data == wanted
    assert v1["boottime_gpu_evidence"] == []


def test_report_data_have_64_bytes_at_most(keysock: Keysock) -> None:
    assert "too long" in refused(keysock, "/GetQuote", 400, report_data="00" * 65)
    for text in ("0", "zz", "00 11", "0x0x00"):
        assert "not hex" in refused(keysock, "/GetQuote", 400, report_data=text)


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    "data",
    [
        b"strongroom/rd/v1" + sha384(b"the door's").digest(),
        b"strongroom/rd/v1",
        sha384(b"the broker's").digest(),
        bytes(range(1, 34)),
        report_data(b"somebody else's key"),
        b"dip1::ed25519-pk:" + b64u(bytes(32)).encode(),
    ],
)
def test_without_raw_quote_nobody_gets_evidence_for_a_key_that_is_not_his(
    socket_dir: Any, data: bytes
) -> None:
    rule = Rule(methods=frozenset(Method))
    with served(socket_dir, rights=Rights(uids={0: rule})) as keysock:
        for target in ("/GetQuote", "/Attest", "/v1/Attest"):
            assert "raw_quote" in refused(keysock, target, 403, report_data=data.hex())
            assert (
                "raw_quote" in refused(keysock, target, 403, door="quote", report_data=data.hex()) or target
            )
        # as Tappd hashes it
        assert "raw_quote" in refused(
            keysock, "/prpc/Tappd.TdxQuote", 403, "tappd", report_data=data.hex(), prefix="ratls-cert"
        )
        ask(keysock, "/GetQuote", report_data=sha256(data).hexdigest())
        quote = ask(keysock, "/prpc/Tappd.TdxQuote", "tappd", report_data=data.hex())
        assert bytes.fromhex(quote["quote"])[568:632] == sha512(b"app-data:" + data).digest()


def test_raw_quote_gives_any_bytes(keysock: Keysock) -> None:
    data = b"strongroom/rd/v1" + sha384(b"x").digest()
    assert bytes.fromhex(ask(keysock, "/GetQuote", report_data=data.hex())["quote"])[568:632] == data


def test_the_agent_believes_no_raw_that_userdata_does_not_have(keysock: Keysock) -> None:
    keysock.applications.raw = False
    data = b"strongroom/rd/v1" + sha384(b"x").digest()
    assert "no rule of userdata" in refused(keysock, "/GetQuote", 403, report_data=data.hex())
