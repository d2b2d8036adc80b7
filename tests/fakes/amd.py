"""Genuine SNP evidence from the vectors beside the checkout, in the shape a machine would hand it over."""

import json
from dataclasses import dataclass
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.evidence.snp_certs import CertificateTable
from tests import VECTORS

INDEX: Final = VECTORS / "index.json"
NO_VECTORS: Final = "no real vectors beside this checkout"
needs_vectors: Final = pytest.mark.skipif(not INDEX.exists(), reason=NO_VECTORS)


@dataclass(frozen=True, slots=True)
class Genuine:
    """One vector: raw report, certificates, and what index.json expects."""

    name: str
    report: bytes
    table: CertificateTable
    expect: dict[str, Any]


def genuine(name: str) -> Genuine:
    """The vector called `name`; a skip where the vectors are absent."""
    if not INDEX.exists():
        pytest.skip(NO_VECTORS)
    return next(vector for vector in every_genuine() if vector.name == name)


def every_genuine() -> list[Genuine]:
    """All SNP reports of the set, the bad ones included; none where the vectors are absent."""
    if not INDEX.exists():
        return []
    vectors = json.loads(INDEX.read_text())["vectors"]
    return [_read(v) for v in vectors if v["kind"] in ("snp-report", "snp-report-negative")]


def issuers(file: str) -> CertificateTable:
    """ASK (or ASVK) and ARK of a file in snp/ca, such as "milan_ask_ark"."""
    pem = (VECTORS / "snp/ca" / f"{file}.pem").read_bytes()
    ask, ark = (
        certificate.public_bytes(Encoding.DER) for certificate in x509.load_pem_x509_certificates(pem)
    )
    return CertificateTable(ask=ask, ark=ark)


def revocations(file: str) -> bytes:
    """A revocation list of snp/ca in DER, such as "milan_crl"."""
    return x509.load_pem_x509_crl((VECTORS / "snp/ca" / f"{file}.pem").read_bytes()).public_bytes(
        Encoding.DER
    )


def _read(vector: dict[str, Any]) -> Genuine:
    files = vector["files"]
    chain = issuers(files.get("ca", "snp/ca/milan_ask_ark.pem").removeprefix("snp/ca/").removesuffix(".pem"))
    leaf = (VECTORS / files["leaf"]).read_bytes() if "leaf" in files else None
    is_vlek = vector["expect"].get("leaf_kind") == "SEV-VLEK"
    return Genuine(
        name=vector["id"],
        report=(VECTORS / files["report"]).read_bytes(),
        table=CertificateTable(
            vcek=None if is_vlek else leaf, vlek=leaf if is_vlek else None, ask=chain.ask, ark=chain.ark
        ),
        expect=vector["expect"],
    )
