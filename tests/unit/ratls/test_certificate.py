"""Mirrors strongroom/ratls/certificate.py."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import ConfigError, FormatError
from strongroom.evidence.gpu import GPUEvidence
from strongroom.ratls.certificate import OID, build, extract, load
from tests.fakes.exchange import NOT_BEFORE, certificate, certificate_bundle, tls_key
from tests.fakes.silicon import silicon

KEY = tls_key()
BUNDLE = certificate_bundle(silicon(), KEY)
DER = certificate(KEY, BUNDLE)


def test_what_was_built_in_comes_out() -> None:
    assert extract(DER) == BUNDLE


def test_a_machine_with_eight_gpus_fits() -> None:
    gpus = tuple(
        GPUEvidence(kind="hopper", report=bytes([n]) * 4300, certificates=bytes(3700)) for n in range(8)
    )
    large = replace(BUNDLE, gpus=gpus)
    der = certificate(KEY, large)
    assert extract(der) == large
    assert len(der) < len(large.pack())


def test_the_profile() -> None:
    found = load(DER)
    extensions = found.extensions
    assert found.version is x509.Version.v3
    assert found.not_valid_before_utc == NOT_BEFORE
    assert not extensions.get_extension_for_oid(OID).critical
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["door.example"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"key": ec.generate_private_key(ec.SECP384R1())}, "secp384r1, want secp256r1"),
        ({"not_before": NOT_BEFORE.replace(second=1)}, "whole minute"),
        ({"lifetime": timedelta(days=8)}, "lifetime is 8 days"),
        ({"lifetime": timedelta(minutes=1)}, "lifetime is 0:01:00"),
        ({"serial": 0}, "serial"),
        ({"serial": 2**159}, "serial"),
        ({"names": []}, "no names"),
        ({"names": ["dø.example"]}, "neither an address nor"),
    ],
)
def test_arguments_outside_the_profile_are_refused(change: dict[str, object], why: str) -> None:
    good = {
        "key": KEY,
        "bundle": BUNDLE,
        "names": ["door.example"],
        "not_before": NOT_BEFORE,
        "lifetime": timedelta(hours=1),
        "serial": 1,
    }
    with pytest.raises(ConfigError, match=why):
        build(**{**good, **change})  # type: ignore[arg-type]


def test_a_cut_or_longer_certificate_is_refused() -> None:
    for length in [*range(0, len(DER), 61), len(DER) - 1]:
        with pytest.raises(FormatError, match="not one DER"):
            load(DER[:length])
    with pytest.raises(FormatError, match="not one DER"):
        load(DER + b"\0")


@pytest.mark.parametrize("names", ["3004a3020500", "3004a5020500"])
def test_names_the_library_does_not_know_are_a_format_error(names: str) -> None:
    alternative = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), bytes.fromhex(names))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_BEFORE + timedelta(hours=1))
        .add_extension(alternative, critical=False)
    )
    with pytest.raises(FormatError):
        load(builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER))


def test_a_huge_certificate_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(FormatError, match="98305 bytes, want at most 98304"):
        load(bytes(96 * 1024 + 1))
