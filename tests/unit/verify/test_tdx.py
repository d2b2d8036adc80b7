"""Mirrors strongroom/verify/tdx.py: every TDX vector, a second opinion, then what a forger would try."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.tdx import DEBUG, SEPT_VE_DISABLE, TDXQuote
from strongroom.verify.roots import PRODUCTION
from strongroom.verify.tdx import TDXClaims, verify_quote
from strongroom.verify.tdx_tcb import TCBStatus
from tests import VECTORS
from tests.fakes.dcap import second_opinion
from tests.fakes.intel import (
    BODY,
    BODY_1_5,
    COMPONENTS,
    MONTH,
    NOW,
    PCE_SVN,
    QE_REPORT,
    Certified,
    Platform,
    isv_level,
    key,
    level,
    module,
    pck,
    qe_identity,
    sign,
    simulated,
    tcb_info,
)
from tests.fakes.tdx_vectors import Case, case, cases

NO_VECTORS: Final = "no real vectors beside this checkout"
REFUSED: Final = {  # and how we say what index.json expects
    "v5-no-tcb-level": "tcb info: no level covers this platform",
    "v4-spr-e4-no-tcb-level": "tcb info: no level covers this platform",
    "sgx-v3-config-needed": "tdx quote: version is 3, want 4 or 5",
    "neg-sig-bitflip": "tdx quote: signature is not the attestation key's",
    "neg-rtmr3-bitflip": "tdx quote: signature is not the attestation key's",
    "neg-report-data-bitflip": "tdx quote: signature is not the attestation key's",
    "neg-debug-bit-set-unsigned": "tdx quote: signature is not the attestation key's",
    "neg-qe-report-sig-bitflip": "qe report: signature is not the pck's",
    "neg-ak-replaced": "qe report: report_data differs, want the hash of attestation key",
    "neg-qe-auth-data-changed": "qe report: report_data differs, want the hash of attestation key",
    "neg-akt-p384": "attestation key type is 0x3, want 0x2",
    "neg-tee-type-sgx": "tee type is 0x0, want 0x81",
    "neg-truncated": "4100 bytes left at offset 636, want 4300",
    "neg-sigdata-len-plus-one": "4300 bytes left at offset 636, want 4301",
    "neg-collateral-tcbinfo-edited": "tcbInfo: signature is not the tcb signer's",
    "neg-collateral-tcbinfo-reordered": "tcbInfo: signature is not the tcb signer's",
    "neg-collateral-other-fmspc": "revocation list of Intel SGX PCK Platform CA: expired 2025-07-19",
    "neg-collateral-qe-identity-of-sgx-qe": "qe identity.id: is 'QE', want 'TD_QE'",
}
GOOD: Final = {
    "v4-uptodate",
    "v5-uptodate",
    "v4-debug-td",
    "v4-azure-no-septve",
    "v4-gcp-8000",
    "v4-dstack",
    "v4-cos113-ccel",
}
MACHINE: Final = Platform()


def genuine(name: str) -> Case:
    if not VECTORS.exists():
        pytest.skip(NO_VECTORS)
    return case(name)


def judge(case: Case) -> TDXClaims:
    return verify_quote(
        TDXQuote.parse(case.quote, trailing="any"), case.collateral, roots=PRODUCTION, now=case.now
    )


def verify(platform: Platform = MACHINE, *, quote: TDXQuote | None = None, **changes: Any) -> TDXClaims:
    """A simulated platform's own quote with its own collateral, but for `changes`."""
    data = (quote or platform.quote()).pack()
    arguments: dict[str, Any] = {"collateral": platform.collateral(), "roots": platform.roots, "now": NOW}
    return verify_quote(TDXQuote.parse(data), **(arguments | changes))


@pytest.mark.skipif(not VECTORS.exists(), reason=NO_VECTORS)
def test_every_vector_has_a_verdict_here() -> None:
    assert {case.name for case in cases()} == GOOD | REFUSED.keys()


@pytest.mark.parametrize("name", sorted(GOOD))
def test_genuine_quotes_verify(name: str) -> None:
    case = genuine(name)
    claims, expected = judge(case), case.expected
    assert claims.platform.status == expected["platform_tcb_status"]
    assert claims.qe.status == expected["qe_status"]
    assert (claims.module and claims.module.status) == expected["tdx_module_status"]
    assert claims.tcb_status == expected["platform_tcb_status"]
    assert claims.tcb_date.isoformat() == expected["tcb_date"].replace("Z", "+00:00")
    assert list(claims.platform.advisories) == expected["advisory_ids"]
    assert [claims.valid_from.isoformat(), claims.valid_until.isoformat()] == expected["window"]
    assert (claims.fmspc.hex(), claims.pce_id.hex()) == (case.pck["fmspc"], case.pck["pceid"])
    assert claims.body.mr_td.hex() == case.fields["mr_td"]
    assert claims.root_sha256 in PRODUCTION.intel
    assert not claims.simulated
    assert claims.not_checked == ()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_bad_quotes_and_collateral_are_refused(name: str) -> None:
    with pytest.raises((VerifyError, FormatError), match=REFUSED[name]):
        judge(genuine(name))


def test_debug_and_paravisor_guests_are_genuine_and_say_so() -> None:
    assert judge(genuine("v4-debug-td")).body.debug
    assert not judge(genuine("v4-azure-no-septve")).body.sept_ve_disable


@pytest.mark.parametrize("name", sorted(GOOD | REFUSED.keys()))
def test_a_second_opinion_agrees(name: str) -> None:
    case = genuine(name)
    theirs = second_opinion(case.quote, case.collateral, now=case.now)
    if name == "v4-debug-td":  # what the guest is, which we leave to the policy
        assert theirs == "Verification failed: Debug mode is enabled"
    elif name == "v4-azure-no-septve":
        assert theirs == "Verification failed: SEPT_VE_DISABLE is not enabled"
    elif name == "sgx-v3-config-needed":  # theirs verifies SGX quotes too
        assert theirs[0] == "ConfigurationAndSWHardeningNeeded"
    elif name in REFUSED:
        assert isinstance(theirs, str)
    else:
        claims = judge(case)
        assert theirs == (claims.tcb_status, claims.advisories)


def test_where_the_second_opinion_is_lax_we_are_not() -> None:
    case = genuine("v4-uptodate")
    outer_type = bytearray(case.quote)
    outer_type[636 + 128] = 1
    for data in (bytes(outer_type), case.quote + b"\1"):
        assert second_opinion(data, case.collateral, now=case.now) == ("UpToDate", ())
        with pytest.raises(FormatError):
            TDXQuote.parse(data)


@pytest.mark.parametrize("name", ["v4-uptodate", "v5-uptodate"])
def test_no_byte_of_a_genuine_quote_may_change(name: str) -> None:
    """Not one, signed or not: what no signature covers is refused for its form."""
    case = genuine(name)
    for at in range(len(case.quote)):
        data = bytearray(case.quote)
        data[at] ^= 1 << at % 8
        with pytest.raises((VerifyError, FormatError)):
            verify_quote(TDXQuote.parse(bytes(data)), case.collateral, roots=PRODUCTION, now=case.now)


def test_no_byte_of_the_collateral_may_change() -> None:
    """All but the chain that is only passed on."""
    case = genuine("v4-uptodate")
    quote = TDXQuote.parse(case.quote)
    for name in ("tcb_info", "tcb_info_chain", "qe_identity", "qe_identity_chain", "root_crl", "pck_crl"):
        good = getattr(case.collateral, name)
        for at in range(0, len(good), 3):
            data = bytearray(good)
            data[at] ^= 1 << at % 8
            if name in {"tcb_info", "qe_identity"} and bytes(data).lower() == good.lower():
                continue  # the same signature, in capitals
            with pytest.raises((VerifyError, FormatError)):
                verify_quote(
                    quote, replace(case.collateral, **{name: bytes(data)}), roots=PRODUCTION, now=case.now
                )


def test_collateral_of_another_platform_is_refused() -> None:
    other = genuine("v5-uptodate")
    with pytest.raises(VerifyError, match="is for fmspc 90c06f000000 pceid 0000, want b0c06f000000 0000"):
        judge(replace(genuine("v4-uptodate"), collateral=other.collateral, now=other.now))


def test_a_processor_ca_list_does_not_clear_a_platform_ca_leaf() -> None:
    case, sgx = genuine("v4-uptodate"), genuine("sgx-v3-config-needed")
    with pytest.raises(VerifyError, match="Platform CA: issuer is Intel SGX PCK Processor CA"):
        judge(
            replace(
                case,
                now=sgx.now,
                collateral=replace(case.collateral, pck_crl=sgx.collateral.pck_crl),
            )
        )


def test_residue_after_a_quote_is_told() -> None:
    quote = replace(MACHINE.quote(), trailing=b"\0\1")
    claims = verify_quote(quote, MACHINE.collateral(), roots=MACHINE.roots, now=NOW)
    assert claims.not_checked == ("2 bytes after the quote, which nothing signs",)


@pytest.mark.guarantee("G18")
def test_a_simulated_platform_verifies_and_says_so_and_only_where_it_is_believed() -> None:
    claims = verify()
    assert claims.simulated
    assert claims.body == BODY
    assert (claims.tcb_status, claims.advisories) == (TCBStatus.UP_TO_DATE, ())
    assert claims.evaluation_data_number == 20
    assert claims.valid_from.isoformat() == "2026-11-11T00:00:00+00:00"
    assert claims.valid_until == NOW + MONTH / 2
    assert claims.pck.platform_instance_id == b"\x66" * 16
    with pytest.raises(VerifyError, match="want the pinned intel root"):
        verify(roots=PRODUCTION)


def test_the_second_opinion_holds_for_simulated_platforms_too() -> None:
    for platform in (MACHINE, Platform(version=5, body=BODY_1_5), Platform(version=5)):
        claims = verify(platform)
        assert claims.body == platform.body
        theirs = second_opinion(
            platform.quote().pack(), platform.collateral(), now=NOW, root=platform.root.der
        )
        assert theirs == (claims.tcb_status, claims.advisories)


def _with(status: str, qe: str, tdx: str) -> Platform:
    return Platform(
        tcb_info=tcb_info(
            lambda v: v.update(
                tcbLevels=[level(COMPONENTS, PCE_SVN, (5, 0, 3), status, "INTEL-SA-1")],
                tdxModuleIdentities=[module(isv_level(4, tdx, "INTEL-SA-3"), id="TDX_01")],
            )
        ),
        qe_identity=qe_identity(lambda v: v.update(tcbLevels=[isv_level(1, qe, "INTEL-SA-2")])),
    )


@pytest.mark.parametrize("status", sorted(TCBStatus))
@pytest.mark.parametrize("qe", ["UpToDate", "OutOfDate"])
@pytest.mark.parametrize("tdx", ["UpToDate", "OutOfDate", "Revoked"])
def test_the_status_is_the_worst_of_all_three(status: str, qe: str, tdx: str) -> None:
    platform = _with(status, qe, tdx)
    theirs = second_opinion(platform.quote().pack(), platform.collateral(), now=NOW, root=platform.root.der)
    if "Revoked" in (status, tdx):
        with pytest.raises(VerifyError, match="want none revoked"):
            verify(platform)
        assert "evoked" in theirs or theirs[0] == "Revoked"
        return
    claims = verify(platform)
    assert claims.advisories == ("INTEL-SA-1", "INTEL-SA-2", "INTEL-SA-3")
    assert theirs[0] == claims.tcb_status


def _svn(isv_svn: int, generation: int, microcode: int) -> bytes:
    return bytes((isv_svn, generation, microcode)) + bytes(13)


@pytest.mark.parametrize(
    ("launch", "current", "status", "current_status", "theirs"),
    [
        (_svn(6, 1, 3), _svn(6, 1, 3), "UpToDate", "UpToDate", "UpToDate"),
        (_svn(6, 1, 3), _svn(3, 3, 3), "UpToDate", "UpToDate", "UpToDate"),
        (_svn(4, 1, 3), _svn(4, 1, 3), "OutOfDate", "OutOfDate", "OutOfDate"),
        (_svn(4, 1, 3), _svn(6, 1, 3), "OutOfDate", "UpToDate", "TDRelaunchAdvised"),
        (_svn(6, 1, 2), _svn(6, 1, 3), "OutOfDate", "UpToDate", "TDRelaunchAdvised"),
        (_svn(6, 1, 3), _svn(4, 1, 3), "OutOfDate", "OutOfDate", "UpToDate"),  # they forgive going back
    ],
)
def test_what_runs_now_counts_beside_what_was_launched(
    launch: bytes, current: bytes, status: str, current_status: str, theirs: str
) -> None:
    platform = Platform(version=5, body=replace(BODY_1_5, tee_tcb_svn=launch, tee_tcb_svn2=current))
    claims = verify(platform)
    assert (claims.tcb_status, claims.current_status) == (status, current_status)
    assert claims.relaunch_advised == (theirs == "TDRelaunchAdvised")
    opinion = second_opinion(platform.quote().pack(), platform.collateral(), now=NOW, root=platform.root.der)
    assert opinion[0] == theirs


@pytest.mark.parametrize("current", [_svn(1, 1, 3), _svn(6, 1, 0), bytes(16), _svn(6, 2, 3)])
def test_what_runs_now_must_be_supported(current: bytes) -> None:
    platform = Platform(version=5, body=replace(BODY_1_5, tee_tcb_svn2=current))
    with pytest.raises(VerifyError, match=r"below every level|no level covers|no identity"):
        verify(platform)
    opinion = second_opinion(platform.quote().pack(), platform.collateral(), now=NOW, root=platform.root.der)
    assert isinstance(opinion, str)


def test_a_forged_enclave_on_a_genuine_machine_is_refused() -> None:
    """The PCK signs any enclave's report: only the QE identity says whose enclave it is."""
    for change, why in (
        ({"mr_signer": bytes(32)}, "mr_signer is not that of Intel's quoting enclave"),
        ({"isv_prod_id": 1}, "isv_prod_id is 1, want 2"),
        ({"misc_select": 1}, "misc_select is 0x1"),
        ({"attributes": b"\x17" + bytes(15)}, "no debug"),
        ({"attributes": b"\x05" + bytes(15)}, "want the identity's"),
        ({"isv_svn": 3}, "qe report: svn is 3, below every level"),
    ):
        with pytest.raises(VerifyError, match=why):
            verify(Platform(qe_report=replace(QE_REPORT, **change)))


def test_an_attestation_key_off_the_curve_is_refused() -> None:
    bad = b"\1" * 64
    report = replace(QE_REPORT, report_data=sha256(bad + bytes(range(32))).digest().ljust(64, b"\0"))
    quote = MACHINE.quote(
        attestation_key=bad, qe_report=report, qe_report_signature=sign(key("pck"), report.pack())
    )
    with pytest.raises(VerifyError, match="attestation key is not a point on P-256"):
        verify(quote=quote)


def test_degenerate_signatures_are_refused() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    good = MACHINE.quote().signature
    for signature in (
        bytes(64),
        good[:32] + bytes(32),
        bytes(32) + good[32:],
        good[:32] + order.to_bytes(32, "big"),
        b"\xff" * 64,
    ):
        with pytest.raises(VerifyError, match="tdx quote: signature is not"):
            verify(quote=MACHINE.quote(signature=signature))


def test_a_changed_guest_is_refused() -> None:
    for body in (
        replace(BODY, td_attributes=SEPT_VE_DISABLE | DEBUG),
        replace(BODY, report_data=bytes(64)),
    ):
        with pytest.raises(VerifyError, match="tdx quote: signature is not the attestation key's"):
            verify(quote=MACHINE.quote(body=body))
    with pytest.raises(VerifyError, match="tdx quote: signature is not"):  # another version of the same body
        verify(quote=MACHINE.quote(version=5))


@pytest.mark.parametrize(
    ("serial", "name"),
    [(2, "PCK Platform CA"), (3, "TCB Signing"), (0xC0FFEE, "PCK Certificate")],
)
def test_revoked_certificates_are_refused(serial: int, name: str) -> None:
    with pytest.raises(VerifyError, match=rf"Intel SGX {name} .*: serial {serial:#x} is revoked"):
        verify(Platform(revoked=frozenset({serial, 99})))
    verify(Platform(revoked=frozenset({99})))


@pytest.mark.parametrize(
    ("shift", "why"),
    [
        (-MONTH, "valid from 2026-11-05"),
        (MONTH / 2 + timedelta(seconds=1), "revocation list of .* expired 2026-12-05"),
        (timedelta(days=-365 * 3), "valid from 2025-01-01"),
        (timedelta(days=365 * 7), "expired 2033-01-01"),
    ],
)
def test_everything_holds_only_in_its_time(shift: timedelta, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify(now=NOW + shift)


def test_documents_hold_only_in_their_time() -> None:
    old = {"issueDate": "2026-09-01T00:00:00Z", "nextUpdate": "2026-10-01T00:00:00Z"}
    with pytest.raises(VerifyError, match="tcb info: expired 2026-10-01"):
        verify(Platform(tcb_info=tcb_info(lambda v: v.update(old))))
    with pytest.raises(VerifyError, match="qe identity: expired 2026-10-01"):
        verify(Platform(qe_identity=qe_identity(lambda v: v.update(old))))
    early = {"issueDate": "2026-11-21T00:00:00Z"}
    with pytest.raises(VerifyError, match="qe identity: valid from 2026-11-21"):
        verify(Platform(qe_identity=qe_identity(lambda v: v.update(early))))


def test_collateral_under_another_root_is_refused() -> None:
    name, other = simulated("Intel SGX Root CA"), key("other root")
    root = Certified(name=name, key=other, issuer=name, issuer_key=other, serial=1, ca=True)
    signer = replace(MACHINE.signer, issuer_key=other)
    theirs = Platform(root=root, signer=signer).collateral(
        root_crl=MACHINE.collateral().root_crl, pck_crl=MACHINE.collateral().pck_crl
    )
    both = MACHINE.roots.with_insecure(Platform(root=root).roots.insecure)
    with pytest.raises(VerifyError, match="ends in another root than the quote"):
        verify(collateral=theirs, roots=both)


def test_two_signing_chains_are_both_looked_at() -> None:
    chain = MACHINE.root.pem + MACHINE.signer.pem  # another order, the same certificates
    verify(collateral=MACHINE.collateral(qe_identity_chain=chain))
    forged = replace(MACHINE.signer, issuer_key=key("forger")).pem + MACHINE.root.pem
    with pytest.raises(VerifyError, match=r"TCB Signing .*: signature is not"):
        verify(collateral=MACHINE.collateral(qe_identity_chain=forged))


def test_documents_signed_by_another_key_are_refused() -> None:
    forged = Platform(signer=replace(MACHINE.signer, key=key("forger"))).collateral()
    for name in ("tcb_info", "qe_identity"):
        with pytest.raises(VerifyError, match="signature is not the tcb signer's"):
            verify(collateral=MACHINE.collateral(**{name: getattr(forged, name)}))
    swapped = MACHINE.collateral(tcb_info=MACHINE.signed("tcbInfo", MACHINE.qe_identity))
    with pytest.raises(FormatError, match=r"tcb info.id: is 'TD_QE', want 'TDX'"):
        verify(collateral=swapped)


def test_a_pck_without_the_extension_is_refused() -> None:
    with pytest.raises(VerifyError, match="pck: no sgx extension"):
        verify(Platform(pck=replace(pck(), extensions=())))
