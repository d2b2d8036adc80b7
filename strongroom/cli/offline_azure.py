"""Azure's evidence in files: the HCL report, the hardware's own evidence, and the quote of its vTPM."""

from dataclasses import replace

from strongroom.cli.offline_tpm import pcr_values, quote_facts, signature_of, with_log
from strongroom.cli.question import Answer, Question, claims_facts
from strongroom.errors import VerifyError
from strongroom.evidence.detect import Kind
from strongroom.evidence.hcl import HCLReport, ReportType
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.tpm import TPMQuote
from strongroom.verify.azure import AzureClaims, AzureEvidence, verify_azure_snp, verify_azure_tdx
from strongroom.verify.bundle import snp_claims, tdx_claims
from strongroom.verify.tdx import verify_quote


def verify_hcl(question: Question) -> Answer:
    """The whole path: hardware report, its hash of the JSON, the key in it, the quote by that key."""
    hcl = HCLReport.parse(question.pieces.need(Kind.HCL))
    quote = TPMQuote.parse(question.pieces.need(Kind.TPM_QUOTE))
    if len(quote.pcr_select) != 1:
        raise VerifyError(f"tpm quote: {len(quote.pcr_select)} banks are quoted, want one")
    chosen = quote.pcr_select[0].pcrs
    values = {pcr: value for pcr, value in pcr_values(question).items() if pcr in chosen}
    evidence = AzureEvidence(hcl=hcl, quote=quote, signature=signature_of(question), pcrs=values)
    nonce = question.nonce if question.nonce is not None else quote.extra_data
    if hcl.report_type is ReportType.SNP:
        report = SNPReport.parse(hcl.hardware_report)
        table, crl = question.amd_table(
            report, CertificateTable.parse(question.pieces.one(Kind.SNP_TABLE) or b"")
        )
        azure = verify_azure_snp(
            evidence, table, nonce=nonce, wanted=chosen, roots=question.roots, now=question.now, crl=crl
        )
        if azure.snp is None:
            raise VerifyError("hcl report: holds no snp report, want one")
        claims = snp_claims(*azure.snp, None)
    else:
        td_quote = TDXQuote.parse(question.pieces.need(Kind.TDX))
        td = verify_quote(td_quote, question.tdx_collateral(td_quote), roots=question.roots, now=question.now)
        azure = verify_azure_tdx(evidence, td, nonce=nonce, wanted=chosen)
        claims = tdx_claims(td, None)
    claims = replace(claims, azure=azure, tpm=azure.tpm)
    log_facts, gaps = with_log(question, azure.tpm)
    facts = (*claims_facts(claims), *_facts(azure), *quote_facts(azure.tpm), *log_facts)
    what = f"Azure confidential VM ({hcl.report_type.name})"
    return Answer(what, facts, claims, claims.simulated, (*claims.not_checked, *azure.not_checked, *gaps))


def _facts(azure: AzureClaims) -> tuple[tuple[str, str], ...]:
    return (
        ("secure boot", "on" if azure.secure_boot else "OFF"),
        ("console", {True: "ENABLED", False: "off", None: "unknown"}[azure.console_enabled]),
    )
