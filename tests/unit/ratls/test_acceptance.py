"""Mirrors strongroom/ratls/acceptance.py."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.evidence.binding import Purpose, certificate_challenge
from strongroom.ratls.acceptance import accept, spki
from strongroom.ratls.certificate import OID, load
from strongroom.ratls.cmw import pack_cmw
from strongroom.verify.lacking import LackingError
from strongroom.verify.roots import PRODUCTION
from tests.fakes import exchange
from tests.fakes.exchange import NOT_BEFORE, NOW, certificate, certificate_bundle, tls_key
from tests.fakes.makers import PCK_SERIAL, World
from tests.fakes.silicon import MEASUREMENT, bundle, roots, silicon

CHIP = silicon()
ROOTS = roots(CHIP)
KEY = tls_key()
BUNDLE = certificate_bundle(CHIP, KEY)
DER = certificate(KEY, BUNDLE)


def test_an_honest_certificate_is_accepted() -> None:
    claims = accept(DER, roots=ROOTS, now=NOW)
    assert claims.measurement == MEASUREMENT
    assert claims.simulated
    assert claims.events == BUNDLE.events
    assert spki(DER) == exchange.spki(KEY)


@pytest.mark.guarantee("G18")
def test_simulated_silicon_is_no_default_root() -> None:
    with pytest.raises(VerifyError):
        accept(DER, roots=PRODUCTION, now=NOW)


def test_the_end_of_time_is_only_too_late() -> None:
    start = datetime(9999, 12, 31, 23, 0, tzinfo=UTC)
    name = x509.Name([])
    der = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start.replace(minute=59, second=59))
        .sign(KEY, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    with pytest.raises(VerifyError, match="valid 9999"):
        accept(der, roots=ROOTS, now=NOW)


@pytest.mark.guarantee("G8")
def test_evidence_moved_to_another_key_is_refused() -> None:
    thief = tls_key()
    with pytest.raises(VerifyError, match="report_data"):
        accept(certificate(thief, BUNDLE), roots=ROOTS, now=NOW)


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("purpose", [p for p in Purpose if p is not Purpose.RA_TLS])
def test_evidence_for_another_purpose_is_refused(purpose: Purpose) -> None:
    evidence = bundle(
        CHIP,
        purpose=purpose,
        challenge=certificate_challenge(NOT_BEFORE),
        key=exchange.spki(KEY),
        events=exchange.events(),
    )
    with pytest.raises(VerifyError):
        accept(certificate(KEY, evidence), roots=ROOTS, now=NOW)


@pytest.mark.guarantee("G7")
def test_evidence_for_another_minute_is_refused() -> None:
    later = NOT_BEFORE + timedelta(minutes=1)
    with pytest.raises(VerifyError, match="challenge"):
        accept(certificate(KEY, BUNDLE, not_before=later), roots=ROOTS, now=NOW)


@pytest.mark.parametrize(
    ("now", "alive"),
    [
        (NOT_BEFORE - timedelta(seconds=61), False),
        (NOT_BEFORE - timedelta(seconds=60), True),
        (NOT_BEFORE + timedelta(hours=24, seconds=60), True),
        (NOT_BEFORE + timedelta(hours=24, seconds=61), False),
    ],
)
def test_it_lives_as_long_as_it_says_give_or_take_a_minute(now: datetime, alive: bool) -> None:
    if alive:
        accept(DER, roots=ROOTS, now=now)
    else:
        with pytest.raises(VerifyError, match="and it is"):
            accept(DER, roots=ROOTS, now=now)


def by_hand(
    signer: ec.EllipticCurvePrivateKey,
    *,
    not_before: datetime = NOT_BEFORE,
    lifetime: timedelta = timedelta(hours=1),
    evidence: bytes | None = None,
    key: ec.EllipticCurvePrivateKey = KEY,
) -> bytes:
    """A certificate the profile would not let us build."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "strongroom")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(not_before)
        .not_valid_after(not_before + lifetime)
    )
    if evidence is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(OID, evidence), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


def test_another_signer_is_refused() -> None:
    with pytest.raises(VerifyError, match="not signed by its own key"):
        accept(by_hand(tls_key(), evidence=pack_cmw(BUNDLE)), roots=ROOTS, now=NOW)


def test_a_loose_second_is_refused() -> None:
    der = by_hand(KEY, not_before=NOT_BEFORE.replace(second=7), evidence=pack_cmw(BUNDLE))
    with pytest.raises(FormatError, match="whole minute"):
        accept(der, roots=ROOTS, now=NOW)


def test_a_long_life_is_refused() -> None:
    der = by_hand(KEY, lifetime=timedelta(days=8), evidence=pack_cmw(BUNDLE))
    with pytest.raises(VerifyError, match="want at most 7 days"):
        accept(der, roots=ROOTS, now=NOW)


def test_no_evidence_is_refused() -> None:
    with pytest.raises(FormatError, match="no evidence extension"):
        accept(by_hand(KEY), roots=ROOTS, now=NOW)


def test_another_curve_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    der = by_hand(key, key=key, evidence=pack_cmw(BUNDLE))
    with pytest.raises(FormatError, match="not on P-256"):
        accept(der, roots=ROOTS, now=NOW)


def test_a_flipped_bit_anywhere_is_refused() -> None:
    # the last bytes are the signature, whose encoding has a bit that says nothing
    for position in [*range(200), *range(200, len(DER) - 80, 53)]:
        mutant = bytearray(DER)
        mutant[position] ^= 1 << position % 8
        with pytest.raises(StrongroomError):
            accept(bytes(mutant), roots=ROOTS, now=NOW)


def test_the_certificate_stays_far_below_its_limit() -> None:
    assert len(DER) < 24 * 1024
    assert load(DER).signature_hash_algorithm is not None


def test_what_a_certificate_has_no_room_for_comes_beside_it() -> None:
    world = World(NOW, "tdx")
    made = world.make(
        purpose=Purpose.RA_TLS, challenge=certificate_challenge(NOT_BEFORE), key=exchange.spki(KEY)
    )
    der = certificate(KEY, made)
    with pytest.raises(LackingError, match="neither evidence nor verifier has intel-tcb-info"):
        accept(der, roots=world.roots, now=NOW)
    accept(der, roots=world.roots, now=NOW, carried=world.collateral)
    accept(der, roots=world.roots, now=NOW, collateral=world.collateral)
    revoked = replace(world, revoked=frozenset({PCK_SERIAL})).collateral
    with pytest.raises(VerifyError, match="is revoked"):
        accept(der, roots=world.roots, now=NOW, carried=revoked)
    with pytest.raises(VerifyError, match="is revoked"):
        accept(der, roots=world.roots, now=NOW, carried=world.collateral, collateral=revoked)
