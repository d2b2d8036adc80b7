"""One local server that plays every attestation service, from evidence and authorities of the tests' own."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256, sha384
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from demo.silicon.pki import PKI
from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.evidence.snp import TCB
from strongroom.host.collateral.item import Vendor
from strongroom.host.collateral.services import Service, Services
from strongroom.host.fetch import Pin
from strongroom.verify.tdx_collateral import TDXCollateral
from strongroom.wire.canonical import b64
from tests.fakes.https import Heard, certificate, listening, ok
from tests.fakes.nvidia import Authority, answer

PSS_384: Final = PSS(mgf=MGF1(SHA384()), salt_length=48)
BUSY: Final = ok(b"", status="429 Too Many Requests")
BROKEN: Final = ok(b"", status="503 Service Unavailable")

Answer = Callable[[bytes], bytes | None]
"""The head and body of a request to the bytes of an answer; None is silence."""


def revocation_list(
    issuer: x509.Name,
    key: RSAPrivateKey,
    *,
    issued: datetime,
    life: timedelta | None = timedelta(days=30),
    serials: tuple[int, ...] = (),
) -> bytes:
    """A list in DER, signed as AMD signs."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(issued)
    builder = builder.next_update(issued + (life or timedelta(days=1)))
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(issued).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(key, SHA384(), rsa_padding=PSS_384).public_bytes(Encoding.DER)


@dataclass
class Vendors:
    """Answers by path; `first` are given before those, one to each request, whatever it asks."""

    answers: dict[str, bytes | None] = field(default_factory=dict)
    first: list[bytes | None] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    posts: dict[str, Callable[[bytes], bytes | None]] = field(default_factory=dict)

    def __call__(self, request: bytes) -> bytes | None:
        head, _, body = request.partition(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.asked.append(path)
        if self.first:
            return self.first.pop(0)
        if method == "POST" and path in self.posts:
            return self.posts[path](body)
        return self.answers[path] if path in self.answers else ok(b"no such thing", status="404 Not Found")

    def amd(self, pki: PKI, tcb: TCB, crl: bytes, *, product: str = "Genoa") -> None:
        """What AMD's service says of the chip of `pki`."""
        chain = b"".join(one.public_bytes(Encoding.PEM) for one in (pki.ask, pki.ark))
        base = f"/vcek/v1/{product}"
        levels = f"blSPL={tcb.bootloader}&teeSPL={tcb.tee}&snpSPL={tcb.snp}&ucodeSPL={tcb.microcode}"
        self.answers[f"{base}/{pki.chip_id.hex()}?{levels}"] = ok(pki.vcek(tcb).public_bytes(Encoding.DER))
        self.answers[f"{base}/cert_chain"] = ok(chain)
        self.answers[f"{base}/crl"] = ok(crl)

    def intel(self, collateral: TDXCollateral, *, fmspc: str, ca: str = "platform") -> None:
        """What Intel's service says of platforms of this number."""

        def signed(body: bytes, header: str, chain: bytes) -> bytes:
            return ok(body, headers=f"{header}: {quote(chain.decode())}\r\n")

        self.answers |= {
            f"/tdx/certification/v4/tcb?fmspc={fmspc}": signed(
                collateral.tcb_info, "TCB-Info-Issuer-Chain", collateral.tcb_info_chain
            ),
            "/tdx/certification/v4/qe/identity": signed(
                collateral.qe_identity, "SGX-Enclave-Identity-Issuer-Chain", collateral.qe_identity_chain
            ),
            f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der": signed(
                collateral.pck_crl, "SGX-PCK-CRL-Issuer-Chain", collateral.pck_crl_chain
            ),
            "/IntelSGXRootCA.der": ok(collateral.root_crl),
        }

    def manifest(self, name: str, xml: bytes) -> None:
        """What NVIDIA's service answers under the name of reference values."""
        answer = {"id": name, "rim": b64(xml), "sha256": sha256(xml).hexdigest(), "rim_format": "TEXT"}
        self.answers[f"/v1/rim/{name}"] = ok(json.dumps(answer).encode())

    def responder(self, *chains: Sequence[Authority], **changes: Any) -> None:
        """NVIDIA's responder, for every certificate of the chains (leaf first)."""
        about = {
            (issuer.certificate.subject.public_bytes(), subject.certificate.serial_number): (subject, issuer)
            for chain in chains
            for subject, issuer in pairwise(chain)
        }
        names = {sha384(name).digest(): name for name, _ in about}

        def respond(body: bytes) -> bytes:
            asked = ocsp.load_der_ocsp_request(body)
            assert isinstance(asked.hash_algorithm, SHA384)
            subject, issuer = about[names[asked.issuer_name_hash], asked.serial_number]
            return ok(answer(subject, issuer, **changes))

        self.posts["/"] = respond


@dataclass(frozen=True)
class Played:
    """Where the services are played, and how to ask there."""

    services: Services
    certificate: TLSCertificate
    heard: Heard

    def options(self, ca: Path) -> list[str]:
        """The words of a command line that send it here."""
        ca.write_text(self.certificate.pem)
        mirrors = [f"--service={vendor}={service.url}" for vendor, service in self.services.items()]
        return [*mirrors, f"--ca={ca}"]


@contextmanager
def playing(directory: Path, answer: Answer) -> Iterator[Played]:
    """All services at one local address, in a thread of their own."""
    certified = certificate(directory / "tls")
    ready, end = threading.Event(), asyncio.Event()
    heard: list[Heard] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        async with listening(directory / "tls", answer) as one:
            heard.append(one)
            loops.append(asyncio.get_running_loop())
            ready.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        service = Service(heard[0].url, Pin(ca_pem=certified.pem))
        yield Played(dict.fromkeys(Vendor, service), certified, heard[0])
    finally:
        loops[0].call_soon_threadsafe(end.set)
        thread.join(10)
