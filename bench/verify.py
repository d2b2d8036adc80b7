"""`make bench-verify`: milliseconds for one verification of each kind, on one core, warm and cold; beside dcap-qvl for
TDX.

Warm is what a verifier takes that has seen these issuers before; cold, one that remembers no certificate, signature or
answer, as at its first. What is verified comes from a set of vectors: the first genuine one of each kind its
index.json names. Reading and decoding the evidence is inside the time; collateral is decoded once, as a verifier keeps
it. A bundle of eight different GPUs is minted here, for there is no genuine one to be had. The last line is one JSON
object.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeGuard

from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.cli.terminal import table
from strongroom.errors import StrongroomError
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.hcl import HCLReport, ReportType
from strongroom.evidence.snp import SigningKey, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.spdm import SPDMReport
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.tpm import Hash
from strongroom.verify.azure import verify_azure_snp
from strongroom.verify.nvidia import GPUClaims, verify_device
from strongroom.verify.rim import compare, verify_rim
from strongroom.verify.roots import PRODUCTION
from strongroom.verify.snp import verify_report
from strongroom.verify.tcglog import replay
from strongroom.verify.tdx import verify_quote
from tests import VECTORS
from tests.fakes import composite
from tests.fakes import nvidia as fake
from tests.vectors import azure, nvidia, tdx, tpm
from tests.vectors.index import Vector, VectorSet, certificates, window

ROUNDS: Final = 60
COLD_ROUNDS: Final = 20
GPUS: Final = 8
_KIND_MS: Final = 3.0
_TARGETS: Final = {"snp-report": 1.0, "composite": 40.0, "composite-distinct": 40.0}

Work = Callable[[], object]


class Cached(Protocol):
    def cache_clear(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Figure:
    """Milliseconds of the rounds of one kind."""

    name: str
    what: str
    rounds: tuple[float, ...]
    cold: tuple[float, ...]  # with nothing remembered; empty where nothing ever is

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def cold_median(self) -> float | None:
        return statistics.median(self.cold) if self.cold else None

    @property
    def target(self) -> float:
        return _TARGETS.get(self.name, _KIND_MS)

    def row(self) -> tuple[str, ...]:
        return (
            self.name,
            f"{self.median:.2f}",
            f"{min(self.rounds):.2f}",
            f"{max(self.rounds):.2f}",
            "-" if self.cold_median is None else f"{self.cold_median:.2f}",
            "-" if self.name.startswith("dcap") else f"{self.target:.0f}",
            self.what,
        )


def measure(vectors: VectorSet) -> Iterator[Figure]:
    """A figure for every kind the set has a genuine vector of."""
    works: dict[str, tuple[str, Work]] = {}
    for vector in vectors.vectors:
        make = _MAKERS.get(vector.kind)
        if make is None or vector.kind in works:
            continue
        try:
            work = make(vector, vectors)
            work()
        except (StrongroomError, LookupError, StopIteration):
            continue  # not a genuine one, or without all it takes
        works[vector.kind] = (vector.id, work)
        if vector.kind == "tdx-quote" and (peer := _dcap(vector, vectors)) is not None:
            works["dcap-qvl"] = (f"{vector.id}, by dcap-qvl", peer)
    if "snp-report" in works and (devices := _eight(vectors)) is not None:
        snp = works["snp-report"][1]
        works["composite"] = (f"one SNP report, {GPUS} GPUs, their manifests", lambda: (snp(), devices()))
    works["composite-distinct"] = (
        f"one bundle: SNP report, {GPUS} different GPUs, manifests, OCSP answers (minted)",
        _distinct(),
    )
    for name, (what, work) in works.items():
        cold = () if name.startswith("dcap") else tuple(_timed_cold(work) for _ in range(COLD_ROUNDS))
        yield Figure(name, what, tuple(_timed(work) for _ in range(ROUNDS)), cold)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench-verify", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", default=VECTORS, metavar="DIR")
    directory = parser.parse_args(argv).directory
    if not (directory / "index.json").exists():
        print(f"bench-verify: {directory}: no index.json, want a set of vectors", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    figures = list(measure(VectorSet.load(directory)))
    header = ("kind", "warm ms", "fastest", "slowest", "cold ms", "at most", "what")
    print(table([header, *(figure.row() for figure in figures)]))
    print(
        json.dumps(
            {
                "bench": "verify",
                "unit": "ms",
                "rounds": ROUNDS,
                "cold_rounds": COLD_ROUNDS,
                "figures": _json(figures),
            }
        )
    )
    return 0


def _json(figures: list[Figure]) -> dict[str, Any]:
    return {
        figure.name: {
            "median": round(figure.median, 3),
            "fastest": round(min(figure.rounds), 3),
            **({} if figure.cold_median is None else {"cold": round(figure.cold_median, 3)}),
            **({} if figure.name.startswith("dcap") else {"target": figure.target}),
        }
        for figure in figures
    }


def _timed(work: Work) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


def _timed_cold(work: Work) -> float:
    forget()
    return _timed(work)


def forget() -> None:
    """Nothing that this process has verified before is known any more."""
    modules = [module for name, module in sys.modules.items() if name.startswith("strongroom.")]
    for cached in {value for module in modules for value in vars(module).values() if _is_cache(value)}:
        cached.cache_clear()


def _is_cache(value: object) -> TypeGuard[Cached]:
    return callable(getattr(value, "cache_clear", None))


def _snp(vector: Vector, vectors: VectorSet) -> Work:
    raw, leaf = vectors.read(vector, "report"), vectors.read(vector, "leaf")
    (certified,) = certificates(leaf)
    ask, ark = (issuer.public_bytes(Encoding.DER) for issuer in vectors.path_of(certified))
    is_vlek = SNPReport.parse(raw).signing_key is SigningKey.VLEK
    own = CertificateTable(vlek=leaf if is_vlek else None, vcek=None if is_vlek else leaf, ask=ask, ark=ark)
    now = vectors.moment([window(certified)])
    return lambda: verify_report(SNPReport.parse(raw), own, roots=PRODUCTION, now=now)


def _tdx(vector: Vector, vectors: VectorSet) -> Work:
    raw, evaluation = vectors.read(vector, "quote"), vector.expect["evaluations"][0]
    collateral = tdx.collateral_of(vectors.bytes_at(evaluation["collateral"]))
    now = datetime.fromisoformat(evaluation["at"])
    return lambda: verify_quote(TDXQuote.parse(raw), collateral, roots=PRODUCTION, now=now)


def _dcap(vector: Vector, vectors: VectorSet) -> Work | None:
    try:
        import dcap_qvl  # noqa: PLC0415 - a peer to measure against, where it is installed
    except ImportError:
        return None
    raw, evaluation = vectors.read(vector, "quote"), vector.expect["evaluations"][0]
    collateral = dcap_qvl.QuoteCollateralV3.from_json(vectors.bytes_at(evaluation["collateral"]).decode())
    now = int(datetime.fromisoformat(evaluation["at"]).timestamp())
    return lambda: dcap_qvl.verify(raw, collateral, now)


def _tpm(vector: Vector, vectors: VectorSet) -> Work:
    quoted, key = tpm.json_quote(json.loads(vectors.read(vector, "evidence")))
    return lambda: quoted.verify(key)


def _log(vector: Vector, vectors: VectorSet) -> Work:
    raw = vectors.read(vector, "log")
    kind, bank = (LogKind.CC, Hash.SHA384) if vector.kind == "ccel" else (LogKind.TPM, Hash.SHA256)
    return lambda: replay(TCGLog.parse(raw, kind), bank)


def _azure(vector: Vector, vectors: VectorSet) -> Work:
    raw, leaf = vectors.read(vector, "hcl"), vectors.read(vector, "vcek")
    if HCLReport.parse(raw).report_type is not ReportType.SNP:
        raise LookupError
    (certified,) = certificates(leaf)
    ask, ark = (issuer.public_bytes(Encoding.DER) for issuer in vectors.path_of(certified))
    own = CertificateTable(vcek=leaf, ask=ask, ark=ark)
    now = vectors.moment([window(certified)])

    def work() -> object:
        evidence = azure.evidence_of(vector, vectors, HCLReport.parse(raw))
        nonce, wanted = evidence.quote.extra_data, frozenset(evidence.pcrs)
        return verify_azure_snp(evidence, own, nonce=nonce, wanted=wanted, roots=PRODUCTION, now=now)

    return work


def _gpu(vector: Vector, vectors: VectorSet) -> Callable[[], GPUClaims]:
    raw, chain = vectors.read(vector, "report"), vectors.read(vector, "cert_chain")
    is_switch = len(SPDMReport.parse(raw).measurements) == 31

    def work() -> GPUClaims:
        report = SPDMReport.parse(raw)
        return verify_device(
            report,
            chain,
            nonce=report.nonce,
            roots=PRODUCTION,
            now=vectors.generated,
            kind="switch" if is_switch else "gpu",
            missing_fwid="accept",
        )

    return work


def _rim(vector: Vector, vectors: VectorSet) -> Work:
    raw = vectors.read(vector, "rim")
    now = nvidia.moment_of(raw, vectors)
    return lambda: verify_rim(raw, roots=PRODUCTION, now=now)


def _eight(vectors: VectorSet) -> Work | None:
    """Eight devices of one kind, and the two manifests they share verified once, as for one machine."""
    for vector in vectors.vectors:
        if not {"driver_rim", "vbios_rim"} <= vector.paths.keys():
            continue
        device = _gpu(vector, vectors)
        driver, vbios = (vectors.read(vector, role) for role in ("driver_rim", "vbios_rim"))
        moments = [nvidia.moment_of(raw, vectors) for raw in (driver, vbios)]

        def work() -> object:
            golden = [
                verify_rim(raw, roots=PRODUCTION, now=now)
                for raw, now in zip((driver, vbios), moments, strict=True)  # noqa: B023 - run at once
            ]
            return [compare(device(), golden[0], golden[1]) for _ in range(GPUS)]  # noqa: B023

        return work
    return None


def _distinct() -> Work:
    """Eight devices that share no key, below the issuers they do share; manifests and answers for all of them."""
    maker = fake.nvidia()
    devices = [maker.device(n) for n in range(GPUS)]
    answers = [*maker.answers(devices[0].chain[1:])]
    answers += [fake.answer(device.chain[1], device.chain[2]) for device in devices[1:]]
    signers = maker.answers(maker.rim[::-1])
    known = Collateral.of(
        {
            composite.DRIVER_RIM: maker.driver_rim(),
            composite.VBIOS_RIM: maker.vbios_rim(),
            **{f"nvidia-ocsp/{n}": der for n, der in enumerate(answers)},
            **{f"nvidia-rim-ocsp/{n}": der for n, der in enumerate(signers)},
        }
    )
    raw = composite.bundle("snp", devices=composite.gpus(devices)).pack()

    def work() -> object:
        claims = composite.verify(Bundle.parse(raw), collateral=known)
        if claims.devices is None or not claims.devices.measured or claims.devices.answered_at is None:
            raise LookupError  # this measures a whole verification or none
        return claims

    return work


_MAKERS: Final[dict[str, Callable[[Vector, VectorSet], Work]]] = {
    "snp-report": _snp,
    "tdx-quote": _tdx,
    "tpm-quote": _tpm,
    "tpm-eventlog": _log,
    "ccel": _log,
    "azure-hcl": _azure,
    "nvidia-report": _gpu,
    "nvidia-rim": _rim,
}


if __name__ == "__main__":
    sys.exit(main())
