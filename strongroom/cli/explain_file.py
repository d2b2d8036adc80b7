"""Every field of a file of evidence, with its offset, its size and the name its specification gives it."""

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256

from strongroom.cli.pieces import Piece, read
from strongroom.cli.question import ders
from strongroom.cli.terminal import one_line, table
from strongroom.errors import ConfigError, FormatError, StrongroomError
from strongroom.evidence import outline, outline_nvidia, outline_tdx, outline_tpm
from strongroom.evidence.detect import MAX_BYTES, Kind
from strongroom.evidence.hcl import HCLReport
from strongroom.evidence.outline import Outline
from strongroom.evidence.rim import RIM
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.spdm import SPDMReport
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tdx import TDReport, TDXQuote
from strongroom.evidence.tpm import TPMPublic, TPMQuote, TPMSignature
from strongroom.wire.canonical import parse_json

_MAX_JSON: Final = MAX_BYTES
_LONGEST: Final = 160  # characters of a value shown
_OUTLINES: Final[dict[Kind, tuple[Callable[[Outline], None], Callable[[bytes], object]]]] = {
    Kind.SNP: (outline.snp_report, SNPReport.parse),
    Kind.SNP_TABLE: (outline.certificate_table, CertificateTable.parse),
    Kind.TDX: (outline_tdx.quote, TDXQuote.parse),
    Kind.TDREPORT: (outline_tdx.td_report, TDReport.parse),
    Kind.HCL: (outline_tpm.hcl, HCLReport.parse),
    Kind.TPM_QUOTE: (outline_tpm.attest, TPMQuote.parse),
    Kind.TPM_SIGNATURE: (outline_tpm.signature, TPMSignature.parse),
    Kind.TPM_KEY: (outline_tpm.public, TPMPublic.parse),
    Kind.EVENT_LOG: (outline_tpm.event_log, lambda data: TCGLog.parse(data, LogKind.TPM)),
    Kind.CC_LOG: (outline_tpm.event_log, lambda data: TCGLog.parse(data, LogKind.CC)),
    Kind.GPU: (outline_nvidia.report, SPDMReport.parse),
}


def show(where: str) -> int:
    """Print the fields of one file; the error of its parser comes last, after all that could be read."""
    pieces = read(where)
    if len(pieces.pieces) != 1:
        raise ConfigError(f"{where}: a folder, want one file")
    (piece,) = pieces.pieces
    print(one_line(f"{piece.name}: {piece.kind}, {len(piece.content)} bytes"))
    if piece.kind in _OUTLINES:
        return _binary(piece)
    for line in _lines(piece):
        print(line)
    return 0


def _binary(piece: Piece) -> int:
    describe, parse = _OUTLINES[piece.kind]
    out = Outline(piece.content, str(piece.kind))
    failure: StrongroomError | None = None
    try:
        describe(out)
    except FormatError as error:
        failure = error
    rows = [(f"0x{f.offset:05x}", str(f.size), f.name, f.value) for f in out.fields]
    print(table([("offset", "size", "field", "value"), *rows], widest=60))
    parse(piece.content)  # its sentence is the better one
    if failure is not None:
        raise failure
    return 0


def _lines(piece: Piece) -> Iterator[str]:
    match piece.kind:
        case Kind.CERTIFICATES:
            for der in ders(piece):
                yield _certificate(der, piece.name)
                yield ""
        case Kind.CRL:
            yield from _revocations(piece.content)
        case Kind.RIM:
            rim = RIM.parse(piece.content)
            rows = [("SoftwareIdentity.name", rim.name), ("Meta.product", rim.product)]
            rows += [("Meta.colloquialVersion", rim.version)]
            for index, digests in sorted(rim.golden.items()):
                rows += [(f"Resource[{index}].Hash{n}", d.hex()) for n, d in enumerate(digests)]
            yield table(rows)
        case Kind.TPM_NUMBER:
            yield table([("0x00000", str(len(piece.content)), "sig", piece.content.hex())])
        case _ if piece.content[:1] in (b"{", b"["):
            value = parse_json(piece.content, piece.name, max_bytes=_MAX_JSON)
            yield table(list(_members(value, "")), widest=60)
        case _:
            raise FormatError(f"{piece.name}: {piece.kind} in CBOR, want its JSON form to be explained")


def _members(value: object, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _members(inner, f"{at}.{key}" if at else key)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for n, inner in enumerate(value):
            yield from _members(inner, f"{at}[{n}]")
    else:
        text = value if isinstance(value, str) else json.dumps(value)
        yield at, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _certificate(der: bytes, name: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about it, a verifier says
            return table(_certificate_rows(x509.load_der_x509_certificate(der)))
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion) as error:
        raise FormatError(f"{name}: a certificate that cannot be read") from error


def _certificate_rows(certificate: x509.Certificate) -> list[tuple[str, str]]:
    rows = [
        ("subject", certificate.subject.rfc4514_string()),
        ("issuer", certificate.issuer.rfc4514_string()),
        ("serialNumber", hex(certificate.serial_number)),
        ("notBefore", certificate.not_valid_before_utc.isoformat()),
        ("notAfter", certificate.not_valid_after_utc.isoformat()),
        ("sha256", certificate.fingerprint(SHA256()).hex()),
    ]
    for extension in certificate.extensions:
        critical = ", critical" if extension.critical else ""
        value = extension.value
        shown = value.value.hex() if isinstance(value, x509.UnrecognizedExtension) else repr(value)
        rows.append((f"extension {extension.oid.dotted_string}{critical}", shown[:_LONGEST]))
    return rows


def _revocations(content: bytes) -> Iterator[str]:
    try:
        is_pem = content.startswith(b"-----")
        crl = (x509.load_pem_x509_crl if is_pem else x509.load_der_x509_crl)(content)
        listed = [hex(entry.serial_number) for entry in crl]
    except ValueError as error:
        raise FormatError("revocation list: not one we can read") from error
    yield table(
        [
            ("issuer", crl.issuer.rfc4514_string()),
            ("thisUpdate", crl.last_update_utc.isoformat()),
            ("nextUpdate", crl.next_update_utc.isoformat() if crl.next_update_utc else "none"),
            ("revokedCertificates", ", ".join(listed) or "none"),
        ]
    )
