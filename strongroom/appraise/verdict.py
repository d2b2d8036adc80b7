"""Is a genuine machine acceptable? Every check is made and recorded, also after one has failed.

A verdict on simulated silicon says INSECURE-SIMULATED wherever it is shown, passed or not.
"""

from dataclasses import dataclass
from datetime import datetime

from strongroom.appraise.azure import appraise_azure
from strongroom.appraise.gpu import appraise_gpus
from strongroom.appraise.policy import Policy
from strongroom.appraise.result import Aspect, Result, any_of, refused
from strongroom.appraise.snp import appraise_snp
from strongroom.appraise.tdx import appraise_tdx
from strongroom.appraise.tpm import appraise_tpm
from strongroom.appraise.workload import appraise_workload
from strongroom.errors import PolicyError
from strongroom.verify.claims import Claims
from strongroom.verify.roots import SIMULATED_LABEL
from strongroom.wire.canonical import JSON

__all__ = ["Result", "Verdict", "appraise"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every check in a fixed order. No result at all is no pass."""

    results: tuple[Result, ...]
    simulated: bool
    not_checked: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not pass, one sentence each."""
        return tuple(str(result) for result in self.results if not result.passed)

    def require(self) -> None:
        """PolicyError with every reason in one line, unless all checks passed."""
        if not self.passed:
            silicon = f" ({SIMULATED_LABEL})" if self.simulated else ""
            raise PolicyError(f"evidence{silicon}: {'; '.join(self.reasons) or 'nothing was checked'}")

    def to_json(self) -> dict[str, JSON]:
        return {
            "passed": self.passed,
            "silicon": SIMULATED_LABEL if self.simulated else "genuine",
            "results": [
                {"check": r.check, "passed": r.passed, "found": r.found, "wanted": r.wanted}
                for r in self.results
            ],
            "not_checked": list(self.not_checked),
        }


def appraise(claims: Claims, policy: Policy, *, now: datetime) -> Verdict:
    """The verdict of `policy` on verified claims at `now` (with a zone).

    Every kind of evidence that is there must have its section in the policy, and the other way round.
    """
    results = [
        _root(claims, policy),
        *_hardware(claims, policy, now),
        *appraise_azure(claims.azure, policy.azure),
        *appraise_tpm(claims.tpm, policy.tpm, claims.events, now),
        *appraise_workload(claims, policy),
        *appraise_gpus(claims, policy.gpus, policy.gpu, now),
    ]
    return Verdict(tuple(results), claims.simulated, claims.not_checked)


def _root(claims: Claims, policy: Policy) -> Result:
    if claims.tee == "tpm":
        keys = frozenset() if policy.tpm is None else policy.tpm.keys
        known = claims.root_sha256 in keys
        wanted = any_of(sorted(key.hex() for key in keys))
        return Result("tpm key", known, claims.root_sha256.hex(), wanted, Aspect.HARDWARE)
    genuine = "intel" if claims.tee == "tdx" else "amd"
    if not claims.simulated:
        return Result("root", True, genuine, genuine, Aspect.HARDWARE)
    roots = claims.simulated_roots or {claims.root_sha256}
    found = f"{SIMULATED_LABEL} {any_of(sorted(root.hex() for root in roots))}"
    wanted = f"{genuine}, or a simulated root the policy names"
    return Result("root", roots <= policy.insecure_simulated_roots, found, wanted, Aspect.HARDWARE)


def _hardware(claims: Claims, policy: Policy, now: datetime) -> list[Result]:
    if claims.tee == "tpm":
        return []  # there is none: its key and its registers are all that is judged
    if claims.tee == "tdx":
        if policy.tdx is None:
            return [refused("tdx", "a trust domain", "tdx")]
        return appraise_tdx(claims.tdx, policy.tdx, claims.events, now)
    if not policy.measurements:
        return [refused("snp", "an snp guest", "measurements")]
    return appraise_snp(claims, policy, now)
