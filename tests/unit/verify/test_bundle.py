"""Mirrors strongroom/verify/bundle.py."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from demo.silicon.mint import DEBUG, MIGRATION, POLICY
from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.roots import PRODUCTION
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, bundle, roots, silicon

NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)
CHALLENGE: Final = bytes(range(32))
KEY: Final = b"DER of a public key"
LOG: Final = EventLog((Event("model", b'{"epoch":1}'), Event("boot-done", b"{}")))
SILICON: Final = silicon()
BUNDLE: Final = bundle(SILICON, purpose=Purpose.CHANNEL, challenge=CHALLENGE, key=KEY, events=LOG)


def verify(evidence: Bundle = BUNDLE, **changes: Any) -> Claims:
    arguments: dict[str, Any] = {
        "purpose": Purpose.CHANNEL,
        "challenge": CHALLENGE,
        "key": KEY,
        "roots": roots(SILICON),
        "now": NOW,
    }
    return verify_bundle(evidence, **arguments | changes)


def test_claims_are_what_the_report_says() -> None:
    claims = verify()
    assert (claims.tee, claims.product, claims.leaf, claims.csp_id) == ("snp", "Genoa", "vcek", None)
    assert claims.simulated
    assert claims.root_sha256 == SILICON.pki.ark_sha256
    assert (claims.measurement, claims.host_data) == (MEASUREMENT, HOST_DATA)
    assert (claims.debug, claims.migration, claims.smt, claims.vmpl) == (False, False, True, 0)
    assert claims.reported_tcb == claims.committed_tcb == SILICON.tcb
    assert (claims.report_version, claims.platform_info, claims.gpus) == (3, 0x25, 0)
    assert claims.events == LOG


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.CHANNEL])
def test_evidence_for_one_purpose_serves_no_other(purpose: Purpose) -> None:
    with pytest.raises(VerifyError, match=f"made for channel, want {purpose}"):
        verify(purpose=purpose)
    with pytest.raises(VerifyError, match="snp report: report_data differs"):
        verify(replace(BUNDLE, purpose=purpose), purpose=purpose)


@pytest.mark.guarantee("G7")
def test_evidence_for_an_older_challenge_is_refused() -> None:
    other = bytes(32)
    with pytest.raises(VerifyError, match="made for another challenge"):
        verify(challenge=other)
    with pytest.raises(VerifyError, match="snp report: report_data differs"):
        verify(replace(BUNDLE, challenge=other), challenge=other)


@pytest.mark.guarantee("G8")
def test_evidence_for_another_key_is_refused() -> None:
    with pytest.raises(VerifyError, match="snp report: report_data differs"):
        verify(key=KEY + b"!")


@pytest.mark.parametrize(
    "events",
    [EventLog(), EventLog(LOG.events[::-1]), LOG.extend(Event("boot-done", b"{}")), EventLog(LOG.events[:1])],
    ids=["empty", "reordered", "longer", "shorter"],
)
def test_the_event_log_is_bound(events: EventLog) -> None:
    with pytest.raises(VerifyError, match="snp report: report_data differs"):
        verify(replace(BUNDLE, events=events))


@pytest.mark.guarantee("G18")
def test_production_roots_refuse_simulated_evidence() -> None:
    with pytest.raises(VerifyError, match="want the pinned Genoa root"):
        verify(roots=PRODUCTION)


def test_evidence_without_certificates_is_refused_or_completed() -> None:
    bare = replace(BUNDLE, certificates=b"")
    with pytest.raises(VerifyError, match="vcek: neither the evidence nor the verifier has this certificate"):
        verify(bare)
    table = CertificateTable.parse(BUNDLE.certificates)
    leaf = CertificateTable(vcek=table.vcek).pack()
    with pytest.raises(VerifyError, match="ask: neither"):
        verify(replace(BUNDLE, certificates=leaf))
    verify(replace(BUNDLE, certificates=leaf), issuers=CertificateTable(ask=table.ask, ark=table.ark))


@pytest.mark.parametrize("n", [0, 1, 0x2A0, 1183])
def test_a_cut_report_is_refused(n: int) -> None:
    with pytest.raises(FormatError, match=f"snp report: got {n} bytes, want 1184"):
        verify(replace(BUNDLE, report=BUNDLE.report[:n]))


def test_a_report_of_another_chip_is_refused() -> None:
    unsigned = replace(SNPReport.parse(BUNDLE.report), signature_r=1, signature_s=1)
    with pytest.raises(VerifyError, match="signature is not its certificate's"):
        verify(replace(BUNDLE, report=unsigned.pack()))


@pytest.mark.parametrize(("policy", "debug", "migration"), [(DEBUG, True, False), (MIGRATION, False, True)])
def test_debug_and_migration_are_claimed_not_judged(policy: int, debug: bool, migration: bool) -> None:
    launched = silicon(policy=POLICY | policy)
    evidence = bundle(launched, purpose=Purpose.CHANNEL, challenge=CHALLENGE, key=KEY, events=LOG)
    claims = verify(evidence)
    assert (claims.debug, claims.migration) == (debug, migration)


def test_an_associated_migration_agent_is_claimed() -> None:
    report = SILICON.sign(replace(SNPReport.parse(BUNDLE.report), report_id_ma=bytes(32)))
    assert verify(replace(BUNDLE, report=report.pack())).migration
