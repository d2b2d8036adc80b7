"""Mirrors strongroom/verify/bundle.py for machines that are more than one SNP report."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, get_args

import pytest

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle, TEEKind
from strongroom.evidence.collateral import AMD_CRL, Collateral
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.verify.lacking import LackingError
from strongroom.verify.roots import PRODUCTION
from tests.fakes.composite import (
    GPU,
    KEY,
    LOG,
    NOW,
    bundle,
    collateral,
    following,
    gpus,
    quoted,
    roots,
    verify,
)
from tests.fakes.nvidia import nvidia
from tests.fakes.silicon import silicon
from tests.fakes.tpm import PCRS, ak_chain, rsa_key, rsa_tpm
from tests.fakes.vendors import revocation_list

KINDS: Final = get_args(TEEKind)
WHOLE: Final = {tee: bundle(tee, devices=gpus(), tpm=True) for tee in KINDS}


@pytest.mark.parametrize("tee", KINDS)
def test_every_kind_of_machine_verifies_with_gpu_and_tpm(tee: TEEKind) -> None:
    claims = verify(WHOLE[tee])
    assert claims.tee == tee.removeprefix("azure-")
    assert claims.simulated
    assert claims.root_sha256 in claims.simulated_roots <= roots().insecure
    assert claims.events == LOG
    assert claims.tpm is not None
    assert dict(claims.tpm.pcrs) == PCRS | {15: LOG.pcr}
    assert (claims.azure is not None) == tee.startswith("azure")
    assert (claims.tdx is not None) == tee.endswith("tdx")
    assert claims.gpus == 1
    assert claims.devices is not None
    assert claims.devices.measured


@pytest.mark.parametrize("tee", KINDS)
def test_a_bundle_may_bring_all_its_collateral(tee: TEEKind) -> None:
    carried = replace(WHOLE[tee], collateral=collateral())
    for parsed in (Bundle.parse(carried.pack()), Bundle.parse_cbor(carried.pack_cbor())):
        assert verify(parsed, collateral=None) == verify(WHOLE[tee])


def test_ones_own_collateral_wins_over_what_a_bundle_brings() -> None:
    spoiled = Collateral.of({name: b"spoiled" for name, _ in collateral()})
    verify(replace(WHOLE["tdx"], collateral=spoiled))
    with pytest.raises(StrongroomError):
        verify(replace(WHOLE["tdx"], collateral=spoiled), collateral=None)


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("tee", KINDS)
@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.CHANNEL])
def test_no_kind_serves_another_purpose(tee: TEEKind, purpose: Purpose) -> None:
    with pytest.raises(VerifyError, match="made for channel"):
        verify(WHOLE[tee], purpose=purpose)
    with pytest.raises(VerifyError, match=r"report_data differs|extra_data differs"):
        verify(replace(WHOLE[tee], purpose=purpose), purpose=purpose)


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("tee", KINDS)
def test_no_kind_speaks_for_another_key_challenge_or_log(tee: TEEKind) -> None:
    differs = r"report_data differs|extra_data differs"
    with pytest.raises(VerifyError, match=differs):
        verify(WHOLE[tee], key=KEY + b"!")
    with pytest.raises(VerifyError, match=differs):
        verify(replace(WHOLE[tee], challenge=bytes(32)), challenge=bytes(32))
    with pytest.raises(VerifyError, match=differs):
        verify(replace(WHOLE[tee], events=LOG.extend(Event("more", b""))))


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("tee", KINDS)
def test_the_cpu_commits_to_the_exact_gpu_evidence(tee: TEEKind) -> None:
    differs = r"report_data differs|extra_data differs"
    others: list[Any] = [(), gpus([nvidia().device(2)]), gpus([GPU, nvidia().device(2)])]
    for other in others:
        with pytest.raises(VerifyError, match=differs):
            verify(replace(WHOLE[tee], gpus=other))
    with pytest.raises(VerifyError, match=differs):
        verify(bundle(tee, tpm=True, gpus=gpus()))


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("tee", KINDS)
def test_the_gpu_commits_to_challenge_and_key(tee: TEEKind) -> None:
    # The CPU vouches for this evidence, but the GPU was asked by somebody else.
    with pytest.raises(VerifyError, match="device 0: gpu report: made for another nonce"):
        verify(bundle(tee, devices=gpus(nonce=bytes(32))))


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_a_tpm_needs_a_certified_key(tee: TEEKind) -> None:
    tpm = WHOLE[tee].tpm
    assert tpm is not None
    with pytest.raises(VerifyError, match="tpm quote: its key has no certificate"):
        verify(replace(WHOLE[tee], tpm=replace(tpm, certificates=b"")))
    certified_for_another = b"".join(ak_chain(leaf={"key": rsa_key("another ak")}))
    with pytest.raises(VerifyError, match="signed by another key than the certified one"):
        verify(replace(WHOLE[tee], tpm=replace(tpm, certificates=certified_for_another)))
    without = verify(replace(WHOLE[tee], tpm=None))
    assert without.tpm is None
    assert (
        "that the tpm is this machine's: its certificate names a cloud alone"
        in verify(WHOLE[tee]).not_checked
    )


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("tee", KINDS)
def test_a_tpm_quote_for_other_evidence_is_refused(tee: TEEKind) -> None:
    other = quoted(SILENT, is_azure=tee.startswith("azure"))
    with pytest.raises(VerifyError, match="tpm quote: extra_data differs"):
        verify(replace(WHOLE[tee], tpm=other))


SILENT: Final = b"strongroom/rd/v1" + bytes(48)


@pytest.mark.parametrize("tee", KINDS)
def test_pcr_values_cannot_change_their_numbers(tee: TEEKind) -> None:
    tpm = WHOLE[tee].tpm
    assert tpm is not None
    moved = tuple((index + 1 if index == 11 else index, value) for index, value in tpm.pcrs)
    with pytest.raises(VerifyError, match="tpm quote: "):
        verify(replace(WHOLE[tee], tpm=replace(tpm, pcrs=moved)))
    with pytest.raises(VerifyError, match="no pcr is wanted"):
        verify(replace(WHOLE[tee], tpm=replace(tpm, pcrs=())))


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("tee", KINDS)
def test_log_and_register_tell_the_same_story(tee: TEEKind) -> None:
    shorter, longer = EventLog(LOG.events[:-1]), LOG.extend(Event("more", b""))
    for other in (EventLog(), shorter, longer):
        with pytest.raises(VerifyError, match=r"tpm quote: pcr 15 is [0-9a-f]{64}, the event log makes it"):
            verify(bundle(tee, tpm=True, pcrs=following(other)))
    with pytest.raises(VerifyError, match="tpm quote: without pcr 15, want it"):
        verify(bundle(tee, tpm=True, pcrs=PCRS))
    assert verify(bundle(tee, tpm=True, events=longer)).events == longer


@pytest.mark.parametrize("tee", ["azure-snp", "azure-tdx"])
def test_azure_is_fresh_by_its_tpm_alone(tee: TEEKind) -> None:
    with pytest.raises(VerifyError, match="azure bundle: no tpm quote, want one"):
        verify(replace(WHOLE[tee], tpm=None))
    tpm = WHOLE[tee].tpm
    assert tpm is not None
    with pytest.raises(VerifyError, match="azure bundle: a tpm key of its own"):
        verify(replace(WHOLE[tee], tpm=replace(tpm, public=rsa_tpm().public.pack())))


def test_azure_takes_a_certificate_as_a_second_opinion() -> None:
    tpm = WHOLE["azure-snp"].tpm
    assert tpm is not None
    certified = replace(WHOLE["azure-snp"], tpm=replace(tpm, certificates=b"".join(ak_chain())))
    assert len(verify(certified).simulated_roots) == len(verify(WHOLE["azure-snp"]).simulated_roots) + 1


@pytest.mark.parametrize("tee", KINDS)
def test_one_kind_never_passes_for_another(tee: TEEKind) -> None:
    for other in KINDS:
        if other != tee:
            with pytest.raises((FormatError, VerifyError)):
                verify(replace(WHOLE[tee], tee=other))


def test_a_quote_without_whole_collateral_is_refused() -> None:
    for missing in (name for name, _ in collateral() if name.startswith("intel-")):
        less = Collateral.of({name: data for name, data in collateral() if name != missing})
        with pytest.raises(VerifyError, match=f"neither evidence nor verifier has {missing}$"):
            verify(WHOLE["tdx"], collateral=less)


def test_a_quote_brings_its_own_certificates_and_nothing_behind_it() -> None:
    with pytest.raises(VerifyError, match="1 bytes of certificates, want none beside a quote"):
        verify(replace(WHOLE["tdx"], certificates=b"x"))
    with pytest.raises(FormatError, match="tdx quote"):
        verify(replace(WHOLE["tdx"], report=WHOLE["tdx"].report + b"\0"))


@pytest.mark.guarantee("G18")
@pytest.mark.parametrize("tee", KINDS)
def test_every_simulated_root_must_be_named(tee: TEEKind) -> None:
    needed = verify(WHOLE[tee]).simulated_roots
    assert len(needed) == (4 if tee in ("snp", "tdx") else 3)  # cpu, gpu, reference values, certified tpm key
    verify(WHOLE[tee], roots=PRODUCTION.with_insecure(needed))
    for missing in needed:
        with pytest.raises(VerifyError, match="want the pinned"):
            verify(WHOLE[tee], roots=PRODUCTION.with_insecure(needed - {missing}))


@pytest.mark.parametrize("tee", ["snp", "tdx", "azure-snp"])
def test_no_flipped_bit_of_report_or_quote_is_accepted(tee: TEEKind) -> None:
    """The layers' own tests flip every bit; here one in 97 shows that each layer is called."""
    for flipped in flips(WHOLE[tee]):
        with pytest.raises(StrongroomError):
            verify(flipped)


def test_what_only_the_machine_itself_could_check_changes_no_claim() -> None:
    # Around the fields that the quote repeats, a TDREPORT has some that only the processor can verify.
    good = verify(WHOLE["azure-tdx"])
    for flipped in flips(WHOLE["azure-tdx"]):
        with contextlib.suppress(StrongroomError):
            assert verify(flipped) == good


def flips(whole: Bundle) -> Iterator[Bundle]:
    for n in range(0, 8 * len(whole.report), 97):
        flipped = bytearray(whole.report)
        flipped[n // 8] ^= 1 << n % 8
        yield replace(whole, report=bytes(flipped))


def amd_list(now: datetime, *serials: int) -> Collateral:
    pki = silicon().pki
    crl = revocation_list(pki.ark.subject, pki.ark_key, issued=now - timedelta(days=1), serials=serials)
    return Collateral.of({AMD_CRL: crl})


def test_a_list_that_evidence_brings_counts_while_it_holds() -> None:
    gap, ask = "revocation of the ask: no revocation list given", silicon().pki.ask.serial_number
    assert gap in verify(bundle()).not_checked
    assert gap not in verify(bundle(collateral=amd_list(NOW))).not_checked
    with pytest.raises(VerifyError, match="revoked"):
        verify(bundle(collateral=amd_list(NOW, ask)))
    # Kept evidence outlives its list, and is then as good as without one; a list of one's own has to hold.
    old = amd_list(NOW - timedelta(days=365))
    assert gap in verify(bundle(collateral=old)).not_checked
    with pytest.raises(VerifyError, match="crl: expired"):
        verify(bundle(), collateral=old)
    assert gap not in verify(bundle(collateral=old), collateral=amd_list(NOW)).not_checked


def test_a_verifier_may_have_the_chips_certificate_itself() -> None:
    whole = bundle()
    table = CertificateTable.parse(whole.certificates)
    verify(replace(whole, certificates=b""), issuers=table)
    with pytest.raises(
        LackingError, match="vcek: neither the evidence nor the verifier has this certificate"
    ):
        verify(replace(whole, certificates=b""), issuers=replace(table, vcek=None))


@pytest.mark.parametrize("name", [name for name, _ in collateral() if name.startswith("intel-")])
def test_what_a_platform_lacks_is_named(name: str) -> None:
    less = Collateral.of({other: data for other, data in collateral() if other != name})
    with pytest.raises(LackingError, match=f"neither evidence nor verifier has {name}$"):
        verify(WHOLE["tdx"], collateral=less)
    verify(replace(WHOLE["tdx"], collateral=collateral()), collateral=less)
