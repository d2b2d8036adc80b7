"""Every bit under a signature, turned over one at a time: how many were tried, and that none is accepted.

The first genuine vector of each kind is used. What a signature covers, and the signature itself, is given as
ranges; encodings around it (PEM text, padding, an XML declaration) are nobody's to sign.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import FormatError, StrongroomError
from strongroom.evidence.hcl import HCLReport
from strongroom.evidence.snp import SIGNED_SIZE, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.spdm import SPDMReport
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.tpm import TPMQuote
from strongroom.verify.azure import verify_azure_snp
from strongroom.verify.nvidia import verify_device
from strongroom.verify.rim import verify_rim
from strongroom.verify.roots import Roots
from strongroom.verify.snp import verify_report
from strongroom.verify.tdx import verify_quote
from tests.vectors import azure, nvidia, tdx, tpm
from tests.vectors.index import Vector, VectorSet, certificates, window

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """One genuine vector: `check` returns for `data` as it is, and must raise for every change in `ranges`."""

    what: str
    data: bytes
    ranges: Ranges
    check: Callable[[bytes], object]
    reading: Callable[[bytes], object] | None = (
        None  # equal readings are one text: a hex digit in either case
    )

    def bits(self, step: int = 1) -> range | list[int]:
        """Every `step`-th bit of the ranges, as offsets in bits."""
        return [bit for start, end in self.ranges for bit in range(8 * start, 8 * end)][::step]

    def run(self, step: int = 1) -> "Swept":
        """Flip bits; a failure that is not one of our own errors is a defect."""
        self.check(self.data)
        tried, accepted, defects = 0, list[int](), list[str]()
        for bit in self.bits(step):
            changed = bytearray(self.data)
            changed[bit >> 3] ^= 1 << (bit & 7)
            if self._is_same(bytes(changed)):
                continue
            tried += 1
            try:
                self.check(bytes(changed))
            except StrongroomError:
                continue
            except Exception as error:  # noqa: BLE001 - what is looked for
                defects.append(f"bit {bit}: {type(error).__name__}: {error}")
            else:
                accepted.append(bit)
        return Swept(self.what, tried, tuple(accepted), tuple(defects))

    def _is_same(self, changed: bytes) -> bool:
        if self.reading is None:
            return False
        try:
            return self.reading(changed) == self.reading(self.data)
        except StrongroomError:
            return False


@dataclass(frozen=True, slots=True)
class Swept:
    what: str
    tried: int
    accepted: tuple[int, ...]
    defects: tuple[str, ...]


def sweeps(vectors: VectorSet, roots: Roots) -> Iterator[Sweep]:
    """One for each kind the set has a genuine vector of."""
    done = set[str]()
    for vector in vectors.vectors:
        for name, make in _MAKERS.get(vector.kind, {}).items():
            if name in done:
                continue
            try:
                sweep = make(vector, vectors, roots)
                sweep.check(sweep.data)
            except (StrongroomError, LookupError, ValueError):
                continue  # not a genuine one, or without all it takes
            done.add(name)
            yield sweep


def _snp(vector: Vector, vectors: VectorSet, roots: Roots) -> Sweep:
    leaf = vectors.read(vector, "leaf")
    (certified,) = certificates(leaf)
    ask, ark = (issuer.public_bytes(Encoding.DER) for issuer in vectors.path_of(certified))
    own = CertificateTable(vcek=leaf, ask=ask, ark=ark)
    now = vectors.moment([window(certified)])
    return Sweep(
        f"snp report {vector.id}",
        vectors.read(vector, "report"),
        ((0, SIGNED_SIZE), (0x2A0, 0x2D0), (0x2E8, 0x318)),
        lambda data: verify_report(SNPReport.parse(data), own, roots=roots, now=now),
    )


def _tdx(vector: Vector, vectors: VectorSet, roots: Roots) -> Sweep:
    evaluation = vector.expect["evaluations"][0]
    collateral = tdx.collateral_of(vectors.bytes_at(evaluation["collateral"]))
    now = datetime.fromisoformat(evaluation["at"])
    raw = vectors.read(vector, "quote")
    quote = TDXQuote.parse(raw)
    end = raw.index(quote.pck_chain)
    return Sweep(
        f"tdx quote {vector.id}",
        raw,
        ((0, end),),
        lambda data: verify_quote(TDXQuote.parse(data), collateral, roots=roots, now=now),
    )


def _collateral(vector: Vector, vectors: VectorSet, roots: Roots) -> Sweep:
    """Both signed documents, verbatim, and their signatures, as they stand in the file."""
    evaluation = vector.expect["evaluations"][0]
    raw = vectors.bytes_at(evaluation["collateral"])
    now = datetime.fromisoformat(evaluation["at"])
    quote = TDXQuote.parse(vectors.read(vector, "quote"))
    ranges = []
    for name, text in json.loads(raw).items():
        if name in ("tcb_info", "qe_identity", "tcb_info_signature", "qe_identity_signature"):
            written = json.dumps(text, ensure_ascii=False)[1:-1].encode()
            start = raw.index(written)
            ranges.append((start, start + len(written)))
    return Sweep(
        f"tdx collateral of {vector.id}",
        raw,
        tuple(ranges),
        lambda data: verify_quote(quote, tdx.collateral_of(data), roots=roots, now=now),
        tdx.collateral_of,
    )


def _tpm(vector: Vector, vectors: VectorSet, roots: Roots) -> Sweep:
    del roots
    quoted, key = tpm.json_quote(json.loads(vectors.read(vector, "evidence")))
    attest, signature = quoted.attest, quoted.signature
    joined = attest + signature

    def check(data: bytes) -> object:
        nonce = TPMQuote.parse(attest).extra_data
        flipped = tpm.Quoted(data[: len(attest)], data[len(attest) :], quoted.pcrs)
        quote, claims = flipped.verify(key)
        if quote.extra_data != nonce:
            raise FormatError("tpm quote: made for another nonce")
        return claims

    return Sweep(f"tpm quote {vector.id}", joined, ((0, len(joined)),), check)


def _azure(vector: Vector, vectors: VectorSet, roots: Roots) -> Sweep:
    raw, leaf = vectors.read(vector, "hcl"), vectors.read(vector, "vcek")
    (certified,) = certificates(leaf)
    ask, ark = (issuer.public_bytes(Encoding.DER) for issuer in vectors.path_of(certified))
    own = CertificateTable(vcek=leaf, ask=ask, ark=ark)
    now = vectors.moment([window(certified)])

    def check(data: bytes) -> object:
        evidence = azure.evidence_of(vector, vectors, HCLReport.parse(data))
        nonce, wanted = evidence.quote.extra_data, frozenset(evidence.pcrs)
        return verify_azure_snp(evidence, own, nonce=nonce, wanted=wanted, roots=roots, now=now)

    end = 1236 + len(HCLReport.parse(raw).variable_data)
    signed = ((32, 32 + SIGNED_SIZE), (32 + 0x2A0, 32 + 0x2D0), (32 + 0x2E8, 32 + 0x318), (1236, end))
    return Sweep(f"azure hcl report {vector.id}", raw, signed, check)


def _gpu(vector: Vector, vectors: VectorSet, roots: Roots) -> Sweep:
    raw, chain = vectors.read(vector, "report"), vectors.read(vector, "cert_chain")
    genuine = SPDMReport.parse(raw)

    def check(data: bytes) -> object:
        report = SPDMReport.parse(data)
        return verify_device(
            report, chain, nonce=genuine.nonce, roots=roots, now=vectors.generated, missing_fwid="accept"
        )

    return Sweep(f"nvidia report {vector.id}", raw, ((0, len(raw)),), check)


def _rim(vector: Vector, vectors: VectorSet, roots: Roots) -> Sweep:
    raw = vectors.read(vector, "rim")
    now = nvidia.moment_of(raw, vectors)
    start = raw.index(b"<", 1 if raw.startswith(b"<?") else 0)
    end = raw.index(b"Signature ") - 1
    end = raw.rindex(b"<", 0, end + 1)
    info = raw.index(b"SignedInfo", end), raw.rindex(b"SignedInfo")
    return Sweep(
        f"rim {vector.id}",
        raw,
        ((start, end), info),
        lambda data: verify_rim(data, roots=roots, now=now),
    )


_MAKERS: dict[str, dict[str, Callable[[Vector, VectorSet, Roots], Sweep]]] = {
    "snp-report": {"snp": _snp},
    "tdx-quote": {"tdx": _tdx, "collateral": _collateral},
    "tpm-quote": {"tpm": _tpm},
    "azure-hcl": {"azure": _azure},
    "nvidia-report": {"gpu": _gpu},
    "nvidia-rim": {"rim": _rim},
}
