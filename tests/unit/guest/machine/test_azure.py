"""Mirrors guest/machine/azure.py: the host's metadata service, played on loopback."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from guest.machine.azure import Paravisor
from strongroom.errors import FormatError, StrongroomError, TransportError
from strongroom.evidence.bundle import TEEKind
from strongroom.evidence.hcl import HCLReport, ReportType
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDXQuote
from strongroom.wire.canonical import b64u, unb64u
from tests.fakes.composite import bundle
from tests.fakes.intel import BODY, Platform
from tests.fakes.silicon import silicon

AMD, INTEL = (bundle(tee).report for tee in ("azure-snp", "azure-tdx"))
TABLE = silicon().certificates()
Said = tuple[int, bytes]


@dataclass
class Host:
    """Answers by method and path; what was asked is kept."""

    answers: dict[str, Callable[[bytes], Said]]
    asked: list[str] = field(default_factory=list)
    address: str = ""


@contextmanager
def hosted(**answers: Callable[[bytes], Said]) -> Iterator[Host]:
    paths = {"quote": "POST /acc/tdquote", "certificates": "GET /metadata/THIM/amd/certification"}
    host = Host({paths[name]: answer for name, answer in answers.items()})

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            host.asked.append(what := f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            known = what in host.answers and self.headers["metadata"] == "true"
            status, content = host.answers[what](body) if known else (404, b"")
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815  the names it looks for

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        host.address = f"127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, args=(0.02,)).start()
        try:
            yield host
        finally:
            server.shutdown()


def quoted(body: bytes) -> Said:
    """What the host makes of a TDREPORT, with zeros behind it."""
    asked = json.loads(body)["report"]
    assert unb64u(asked, "report") == HCLReport.parse(INTEL).hardware_report
    found = HCLReport.parse(INTEL)
    quote = replace(Platform(), body=replace(BODY, report_data=found.report_data)).quote().pack()
    return 200, json.dumps({"quote": b64u(quote + bytes(64)), "more": 1.5}).encode()


def certified(_body: bytes) -> Said:
    table = CertificateTable.parse(TABLE)
    vcek, ask, ark = (
        x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
        for der in (table.vcek, table.ask, table.ark)
        if der is not None
    )
    return 200, json.dumps({"vcekCert": vcek, "certificateChain": ask + ark, "tcbm": "0"}).encode()


def test_the_host_makes_one_quote_for_a_boot() -> None:
    with hosted(quote=quoted) as host:
        paravisor = Paravisor(INTEL, service=host.address)
        made = paravisor.evidence()
        assert made == paravisor.evidence()
    assert (made.tee, made.outblob) == ("azure-tdx", INTEL)
    assert TDXQuote.parse(made.auxblob, trailing="none").body.mr_td == BODY.mr_td
    assert host.asked == ["POST /acc/tdquote"]


def test_the_host_knows_the_certificates_of_its_chip() -> None:
    with hosted(certificates=certified) as host:
        made = Paravisor(AMD, service=host.address).evidence()
    assert (made.tee, made.outblob, made.auxblob) == ("azure-snp", AMD, TABLE)


@pytest.mark.parametrize(
    "answer", [lambda _: (503, b""), lambda _: (200, b"{}"), lambda _: (200, b'{"vcekCert":"x"}')]
)
def test_certificates_may_come_from_elsewhere(answer: Callable[[bytes], Said]) -> None:
    with hosted(certificates=answer) as host:
        assert Paravisor(AMD, service=host.address).evidence().auxblob == b""
    assert Paravisor(AMD, service=host.address).evidence().auxblob == b""  # nobody listens there any more


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda _: (500, b"{}"), "status 500"),
        (lambda _: (200, b"{}"), "no text under quote"),
        (lambda _: (200, b"["), "azure: POST /acc/tdquote"),
        (lambda _: (200, json.dumps({"quote": b64u(b"no quote")}).encode()), "the host made no quote"),
        (lambda _: (200, b" " * (65 << 10)), "want 200 and at most 65536"),
    ],
)
def test_without_a_quote_there_is_no_evidence(answer: Callable[[bytes], Said], match: str) -> None:
    with hosted(quote=answer) as host, pytest.raises(StrongroomError, match=match):
        Paravisor(INTEL, service=host.address).evidence()
    with pytest.raises(TransportError, match="azure: POST /acc/tdquote: no answer"):
        Paravisor(INTEL, service=host.address).evidence()


@pytest.mark.parametrize(("report", "tee"), [(AMD, "snp"), (INTEL, "tdx")])
def test_what_was_launched_is_the_hardwares_word(report: bytes, tee: TEEKind) -> None:
    said = Paravisor(report).launched()
    assert isinstance(said, SNPReport) == (tee == "snp")
    assert (HCLReport.parse(report).report_type is ReportType.SNP) == (tee == "snp")


def test_an_index_that_holds_something_else_is_told() -> None:
    with pytest.raises(FormatError, match="hcl report"):
        Paravisor(bytes(2600))
