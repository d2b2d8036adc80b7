"""Mirrors strongroom/verify/ocsp.py."""

from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.errors import VerifyError
from strongroom.verify.ocsp import MAX_ANSWERS, MAX_BYTES, Answers, Status, check_statuses
from tests.fakes.nvidia import NOW, answer, issue, nvidia, responder, simulated

NV: Final = nvidia()
CHAIN: Final = NV.device().chain[1:]
CERTIFICATES: Final = [link.certificate for link in CHAIN]
SUBJECT, ISSUER, *_ = CHAIN
HOUR: Final = timedelta(hours=1)
GOOD: Final = NV.answers(CHAIN)
REVOKED: Final = ocsp.OCSPCertStatus.REVOKED
SIGNING: Final = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
NO_CHECK: Final = (x509.OCSPNoCheck(), False)


def check(*responses: bytes, now: datetime = NOW, **changes: Any) -> tuple[Status, ...]:
    """The status of the device certificate alone."""
    return check_statuses(CERTIFICATES[:2], Answers(responses, **changes), now=now)


def test_every_certificate_but_the_root_has_its_answer() -> None:
    for responses in (GOOD, GOOD[::-1], (*GOOD, GOOD[0])):
        statuses = check_statuses(CERTIFICATES, Answers(responses), now=NOW)
        assert [status.serial for status in statuses] == [link.serial_number for link in CERTIFICATES[:-1]]
        assert {(s.status, s.this_update, s.next_update) for s in statuses} == {
            ("good", NOW - HOUR, NOW + 23 * HOUR)
        }


@pytest.mark.parametrize("missing", range(3))
def test_a_missing_answer_is_refused(missing: int) -> None:
    rest = tuple(der for n, der in enumerate(GOOD) if n != missing)
    with pytest.raises(VerifyError, match=r"no answer names .* by SHA-384, want one"):
        check_statuses(CERTIFICATES, Answers(rest), now=NOW)


def test_the_issuer_may_answer_itself_and_be_named() -> None:
    check(answer(SUBJECT, ISSUER, delegate="issuer"))
    for how in ocsp.OCSPResponderEncoding:
        check(answer(SUBJECT, ISSUER, responder_id=how))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": REVOKED}, "is revoked since 2026-11-11T00:00:00.00:00 .no reason."),
        ({"status": REVOKED, "reason": x509.ReasonFlags.key_compromise}, "is revoked since .*keyCompromise"),
        (
            {"status": REVOKED, "reason": x509.ReasonFlags.certificate_hold},
            "is revoked since .*certificateHold",
        ),
        ({"status": ocsp.OCSPCertStatus.UNKNOWN}, "is not known to its responder"),
        ({"until": None}, "has no next update"),
        ({"until": NOW - timedelta(seconds=1)}, "ended 2026-11-19T23:59:59"),
        ({"at": NOW + HOUR}, r"is of 2026-11-20T01:00:00"),
        ({"at": NOW - 25 * HOUR}, "is older than 1 day"),
        ({"hash": SHA256()}, "no answer names"),
        ({"hash": SHA1()}, "no answer names"),
        ({"delegate": CHAIN[2]}, "signature is not|its issuer did not certify|responder: issued by"),
        ({"delegate": issue("own", None, ca=False)}, "ocsp responder: issued by own, want GH100 Provisioner"),
        ({"delegate": responder(CHAIN[2])}, "ocsp responder: issued by GH100 Identity"),
        ({"delegate": responder(ISSUER, end=NOW - HOUR)}, "ocsp responder: expired"),
        ({"delegate": responder(ISSUER, start=NOW + HOUR)}, "ocsp responder: valid from"),
        ({"delegate": responder(ISSUER, extensions=[NO_CHECK])}, "its issuer did not certify it for OCSP"),
        ({"delegate": responder(ISSUER, extensions=[SIGNING])}, "lacks the no-check mark"),
        (
            {
                "delegate": responder(
                    ISSUER,
                    extensions=[NO_CHECK, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)],
                )
            },
            "its issuer did not certify it for OCSP",
        ),
        ({"delegate": responder(ISSUER, key=ec.generate_private_key(ec.SECP256R1()))}, "key is not on P-384"),
        ({"delegate": responder(ISSUER, hash=SHA256())}, "ocsp responder: not signed with ECDSA and SHA-384"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "+".join(value),
)
def test_one_wrong_thing_makes_it_no_answer(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        check(answer(SUBJECT, ISSUER, **changes))


def test_a_delegate_without_its_certificate_is_nobody() -> None:
    by = responder(ISSUER)
    builder = ocsp.OCSPResponseBuilder().add_response(
        SUBJECT.certificate,
        ISSUER.certificate,
        SHA384(),
        ocsp.OCSPCertStatus.GOOD,
        NOW,
        NOW + HOUR,
        None,
        None,
    )
    response = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, by.certificate).sign(by.key, SHA384())
    with pytest.raises(VerifyError, match="signed neither by the issuer nor by a responder"):
        check(response.public_bytes(Encoding.DER))
    impostor = issue(simulated("GH100 Provisioner ICA 1"))
    other = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, impostor.certificate).sign(
        impostor.key, SHA384()
    )
    with pytest.raises(VerifyError, match="signature is not its responder's"):
        check(other.public_bytes(Encoding.DER))
    weak = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, ISSUER.certificate).sign(
        ISSUER.key, SHA256()
    )
    with pytest.raises(VerifyError, match="not signed with ECDSA and SHA-384"):
        check(weak.public_bytes(Encoding.DER))


def test_a_hold_is_a_state_of_its_own() -> None:
    held = answer(SUBJECT, ISSUER, status=REVOKED, reason=x509.ReasonFlags.certificate_hold)
    assert check(held, hold="accept")[0].status == "hold"
    revoked = answer(SUBJECT, ISSUER, status=REVOKED, reason=x509.ReasonFlags.key_compromise)
    with pytest.raises(VerifyError, match="is revoked"):
        check(revoked, hold="accept")


def test_age_is_the_callers_limit_within_the_answers_own() -> None:
    fresh = answer(SUBJECT, ISSUER, at=NOW + timedelta(minutes=4))
    assert check(fresh)[0].status == "good"  # clocks differ a little
    old = answer(SUBJECT, ISSUER, at=NOW - 40 * HOUR, until=NOW + HOUR)
    assert check(old, max_age=48 * HOUR)[0].status == "good"
    with pytest.raises(VerifyError, match="ended"):
        check(old, max_age=48 * HOUR, now=NOW + 2 * HOUR)


def test_an_answer_for_one_certificate_is_none_for_its_namesake() -> None:
    namesake = issue(simulated("GH100 Provisioner ICA 1"), CHAIN[2])
    with pytest.raises(VerifyError, match="no answer names"):
        check(answer(SUBJECT, namesake, delegate="issuer"))


def test_unreadable_answers() -> None:
    refusal = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)
    with pytest.raises(VerifyError, match="the responder answered unauthorized"):
        check(refusal.public_bytes(Encoding.DER))
    for junk in (b"", b"junk", GOOD[0] + b"\0"):
        with pytest.raises(VerifyError, match="ocsp: not one answer we can read"):
            check(junk)
    with pytest.raises(VerifyError, match=f"want at most {MAX_BYTES}"):
        check(bytes(MAX_BYTES + 1))
    with pytest.raises(VerifyError, match=f"want at most {MAX_ANSWERS}"):
        check(*[GOOD[0]] * (MAX_ANSWERS + 1))


def test_a_cut_or_changed_answer_is_refused() -> None:
    good = GOOD[0]
    for n in range(0, len(good), 5):
        with pytest.raises(VerifyError):
            check(good[:n])
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1 << at % 8
        with pytest.raises(VerifyError):
            check(bytes(changed))
