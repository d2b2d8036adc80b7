"""An Azure confidential VM: the paravisor's report, the vTPM it vouches for, and the host's service for the rest.

The report of the hardware was made at boot and lies in the vTPM; a guest that writes data of its own there gets a new
one, whose JSON repeats them. The host's metadata service, on an address of the link, turns its TDREPORT into a quote
and knows the certificates of its chip. Nobody has to believe that service: what it gives is signed by the makers of
the processor.

Source: Azure's instance metadata service, paths /acc/tdquote and /metadata/THIM/amd/certification.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, Self

from guest.machine.tpm import opened
from guest.machine.tpm_nv import read_index, write_index
from guest.machine.tsm import TSMReport
from strongroom.errors import FormatError, MachineError, TransportError
from strongroom.evidence.hcl import USER_DATA_SIZE, HCLReport, ReportType, RuntimeData
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDReport, TDReportBody, TDXQuote
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u
from strongroom.wire.pem import certificates

HCL_REPORT: Final = 0x01400001
USER_DATA: Final = 0x01400002
SERVICE: Final = "169.254.169.254:80"
MAX_ANSWER: Final = 64 << 10  # bytes
_TIMEOUT: Final = 3.0  # seconds of silence
_RENEWAL: Final = 15.0  # seconds in which the paravisor has to make a new report; about three are usual
_POLL: Final = 0.25  # seconds


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

    def renewed(self, report: bytes) -> Self:
        """The same paravisor with a report that it made since."""
        return type(self)(report, service=self._service)

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


def report_with(
    path: Path,
    user_data: bytes,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """The paravisor's report as it makes it anew around these data, 64 bytes at most. Blocking; MachineError.

    It notices a write by itself and says nothing, so its index is read until the report repeats what was written.
    """
    wanted = user_data.ljust(USER_DATA_SIZE, b"\0")
    with opened(path) as tpm:
        write_index(tpm, USER_DATA, wanted)
    until = clock() + _RENEWAL
    while True:
        with opened(path) as tpm:
            report = read_index(tpm, HCL_REPORT)
        if report is not None and _repeats(report, wanted):
            return report
        if clock() + _POLL > until:
            raise MachineError(f"azure: no report with our data within {_RENEWAL:g} s, want the paravisor's")
        sleep(_POLL)


def _repeats(report: bytes, user_data: bytes) -> bool:
    """Whether it is whole, and around these data: it may be read while it is written."""
    try:
        paravisor = Paravisor(report)
        said = RuntimeData.parse(paravisor.report.variable_data).user_data
        return said == user_data and paravisor.launched().report_data == paravisor.report.report_data
    except FormatError:
        return False


def _text(answer: JSON, name: str) -> str:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, str):
        raise FormatError(f"azure: answer has no text under {name}")
    return value
