"""Mirrors strongroom/ratls/dstack.py. The profile is compared with what a TDX guest of release 0.6 issues."""

import gzip
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.evidence.dstack_app import AppInfo
from strongroom.evidence.dstack_attestation import SNP, TDX, Attestation
from strongroom.evidence.dstack_log import pack, replay
from strongroom.keys.derivation import p256
from strongroom.ratls.dstack import (
    Request,
    authority,
    carrying,
    identity,
    leaf,
    report_data,
    require_bound,
)
from tests import VECTORS

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=1)
ROOT_KEY, KEY = p256(bytes(31) + b"\1"), p256(bytes(31) + b"\2")
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ROOT = authority(ROOT_KEY, not_before=START, not_after=END, serial=1)
EVIDENCE = Attestation(platform=SNP(report=bytes(1184), mr_config="{}"), report_data=report_data(SPKI))
APP = AppInfo(
    app_id=bytes(20),
    compose_hash=bytes(32),
    instance_id=b"",
    device_id=bytes(32),
    mr_system=bytes(32),
    mr_aggregated=bytes(32),
    os_image_hash=b"",
    key_provider_info=b"{}",
)


def issue(extensions: Sequence[x509.UnrecognizedExtension] = (), **wanted: Any) -> x509.Certificate:
    defaults: dict[str, Any] = {"not_before": START, "not_after": END, "subject": "a.example"}
    request = Request(**defaults | wanted)
    return leaf(KEY.public_key(), request, issuer=ROOT, issuer_key=ROOT_KEY, serial=2, extensions=extensions)


def der(extensions: Sequence[x509.UnrecognizedExtension]) -> bytes:
    return issue(extensions).public_bytes(Encoding.DER)


def raw(n: int, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.62397.1.{n}"), value)


def octets(payload: bytes) -> bytes:
    size = len(payload)
    length = b"\x82" + size.to_bytes(2, "big") if size > 255 else b"\x81" * (size > 127) + bytes((size,))
    return b"\x04" + length + payload


def test_the_profile_of_a_leaf() -> None:
    made = issue(
        carrying(app_id=bytes(20), attestation=EVIDENCE.pack_v0()),
        alt_names=("a.example", "10.0.0.1"),
        client=True,
    )
    made.verify_directly_issued_by(ROOT)
    assert [extension.oid.dotted_string for extension in made.extensions] == [
        "2.5.29.17", "2.5.29.15", "2.5.29.37",
        "1.3.6.1.4.1.62397.1.3", "1.3.6.1.4.1.62397.1.4", "1.3.6.1.4.1.62397.1.8",
    ]  # fmt: skip
    assert [extension.oid.dotted_string for extension in made.extensions if extension.critical] == [
        "2.5.29.15"
    ]
    usage = made.extensions[1].value
    assert isinstance(usage, x509.KeyUsage)
    assert usage.public_bytes().hex() == "03020780"
    purposes = made.extensions[2].value
    assert isinstance(purposes, x509.ExtendedKeyUsage)
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = made.extensions[0].value
    assert isinstance(names, x509.SubjectAlternativeName)
    assert [str(name.value) for name in names] == ["a.example", "10.0.0.1"]
    special = made.extensions[4].value
    assert isinstance(special, x509.UnrecognizedExtension)
    assert special.value == b"\x04\x0aapp:custom"


def test_the_profile_of_an_authority() -> None:
    ROOT.verify_directly_issued_by(ROOT)
    assert ROOT.subject.rfc4514_string() == "CN=App Root Cert"
    constraints = ROOT.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 1)
    usage = ROOT.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.public_bytes().hex() == "03020186"


def test_what_is_carried_is_read() -> None:
    for attestation in (EVIDENCE.pack_v0(), EVIDENCE.pack_v1()):
        found = identity(der(carrying(app_id=bytes(20), attestation=attestation, app_info=APP)))
        assert (found.app_id, found.usage, found.attestation, found.app_info) == (
            bytes(20), "app:custom", EVIDENCE, APP,
        )  # fmt: skip
    nothing = identity(der(carrying(usage=None)))
    assert (nothing.app_id, nothing.usage, nothing.attestation, nothing.app_info) == (None,) * 4


@pytest.mark.guarantee("G8")
def test_evidence_speaks_for_the_certificate_s_key() -> None:
    assert require_bound(der(carrying(attestation=EVIDENCE.pack_v0()))) == EVIDENCE
    other = Attestation(platform=EVIDENCE.platform, report_data=report_data(SPKI + b"x"))
    with pytest.raises(VerifyError, match="another key"):
        require_bound(der(carrying(attestation=other.pack_v0())))
    with pytest.raises(VerifyError, match="no evidence"):
        require_bound(der(carrying()))


@pytest.mark.parametrize("packed", [False, True])
def test_the_older_extensions(packed: bool) -> None:
    folder = VECTORS / "tdx" / "v4-dstack"
    if not folder.exists():
        pytest.skip("no real vectors beside this checkout")
    quote, log = (folder / "quote.bin").read_bytes(), b"[]"
    log = b"ELGZv1" + gzip.compress(log) if packed else log
    attestation = identity(der([raw(1, octets(quote)), raw(2, octets(log))])).attestation
    assert attestation is not None
    assert attestation.platform == TDX(quote=quote, event_log=())
    assert attestation.report_data == quote[568:632]
    assert pack(()) == "[]"
    assert replay((), 3) == bytes(48)


@pytest.mark.parametrize(
    "log",
    [
        gzip.compress(b"[" + b" " * (16 * 1024) + b"]"),
        gzip.compress(b"[]")[:-1],
        gzip.compress(b"[]") + b"x",
        b"not gzip",
        gzip.compress(b"\xff"),
    ],
)
def test_a_packed_log_is_bounded_and_whole(log: bytes) -> None:
    with pytest.raises(FormatError, match="event log"):
        identity(der([raw(1, octets(b"quote")), raw(2, octets(b"ELGZv1" + log))]))


@pytest.mark.parametrize(
    "extension",
    [
        raw(3, b"\x04\x13" + bytes(19)),
        raw(3, bytes(20)),
        raw(3, b"\x04\x14" + bytes(21)),
        raw(4, b"\x04\x01\xff"),
        raw(8, b"\x04\x01\x01"),
        raw(8, b"\x04\x00"),
        raw(9, b"\x04\x01\x90"),
        raw(1, b"\x04\x05quote"),
    ],
)
def test_a_wrong_extension_is_refused(extension: x509.UnrecognizedExtension) -> None:
    with pytest.raises(FormatError):
        identity(der([extension]))


def test_every_cut_of_a_certificate_is_refused() -> None:
    good = der(carrying(attestation=EVIDENCE.pack_v0()))
    for n in range(0, len(good), 7):
        with pytest.raises(StrongroomError):
            identity(good[:n])


def test_nobody_has_to_have_a_name() -> None:
    made = issue(subject="", alt_names=("a.example",), server=False)
    assert made.subject == x509.Name([])
    assert made.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.ExtendedKeyUsage)


@pytest.mark.parametrize(
    "wanted",
    [
        {"not_after": START},
        {"not_before": END},
        {"not_before": datetime(1900, 1, 1, tzinfo=UTC)},
        {"subject": "x" * 65},
        {"subject": "a\nb"},
        {"alt_names": ("ü",)},
    ],
)
def test_what_no_certificate_can_have_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        issue(**wanted)


def test_only_p256_is_certified() -> None:
    other = ec.derive_private_key(5, ec.SECP384R1())
    with pytest.raises(FormatError, match="secp384r1"):
        authority(other, not_before=START, not_after=END, serial=1)
