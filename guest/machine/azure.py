"""An Azure confidential VM: the paravisor's report, the vTPM it vouches for, and the host's service for the rest.

The report of the hardware was made at boot and lies in the vTPM. The host's metadata service, on an address of the
link, turns its TDREPORT into a quote and knows the certificates of its chip. Nobody has to believe that service: what
it gives is signed by the makers of the processor.

Source: Azure's instance metadata service, paths /acc/tdquote and /metadata/THIM/amd/certification.
"""

from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from typing import Final

from guest.machine.tsm import TSMReport
from strongroom.errors import FormatError, MachineError, TransportError
from strongroom.evidence.hcl import HCLReport, ReportType
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDReport, TDReportBody, TDXQuote
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u
from strongroom.wire.pem import certificates

SERVICE: Final = "169.254.169.254:80"
MAX_ANSWER: Final = 64 << 10  # bytes
_TIMEOUT: Final = 3.0  # seconds of silence


class Paravisor:
    """What Azure's paravisor and host say of this machine; `report` is what its NV index holds."""

    def __init__(self, report: bytes, *, service: str = SERVICE) -> None:
        self.report = HCLReport.parse(report)
        self._raw, self._service = report, service
        self._beside = b""  # it speaks of the boot: once is enough

    def evidence(self) -> TSMReport:
        """The paravisor's report and what goes beside it; blocking. Raises MachineError."""
        if not self._beside:
            is_amd = self.report.report_type is ReportType.SNP
            self._beside = self._certificates() if is_amd else self._quote()
        provider = "azure_snp" if self.report.report_type is ReportType.SNP else "azure_tdx"
        return TSMReport(self._raw, self._beside, provider)

    def launched(self) -> SNPReport | TDReportBody:
        """The hardware's own words about what was launched."""
        hardware = self.report.hardware_report
        if self.report.report_type is ReportType.SNP:
            return SNPReport.parse(hardware)
        return TDReport.parse(hardware).body

    def _quote(self) -> bytes:
        question = pack_json({"report": b64u(self.report.hardware_report)})
        quote = unb64u(
            _text(self._ask("POST", "/acc/tdquote", question), "quote").rstrip("="), "azure: quote"
        )
        try:
            return replace(TDXQuote.parse(quote), trailing=b"").pack()
        except FormatError as error:
            raise MachineError(f"azure: the host made no quote: {error}") from error

    def _certificates(self) -> bytes:
        """The host's table; empty where it knows none now, for others keep these certificates too."""
        try:
            answer = self._ask("GET", "/metadata/THIM/amd/certification")
            (vcek,) = certificates(_text(answer, "vcekCert").strip().encode(), "azure: vcek", most=1)
            ask, ark = certificates(
                _text(answer, "certificateChain").strip().encode(), "azure: chain", most=2
            )
        except (MachineError, FormatError, ValueError):
            return b""
        return CertificateTable(vcek=vcek, ask=ask, ark=ark).pack()

    def _ask(self, method: str, path: str, body: bytes | None = None) -> JSON:
        what = f"azure: {method} {path}"
        headers = {"Metadata": "true"} | ({"Content-Type": "application/json"} if body is not None else {})
        try:
            with closing(HTTPConnection(self._service, timeout=_TIMEOUT)) as connection:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                content = answer.read(MAX_ANSWER + 1)
        except (OSError, HTTPException) as error:
            raise TransportError(f"{what}: no answer ({type(error).__name__})") from error
        if answer.status != 200 or len(content) > MAX_ANSWER:
            raise MachineError(
                f"{what}: status {answer.status}, {len(content)} bytes, want 200 and at most {MAX_ANSWER}"
            )
        return parse_json(content, what, floats=True)


def _text(answer: JSON, name: str) -> str:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, str):
        raise FormatError(f"azure: answer has no text under {name}")
    return value
