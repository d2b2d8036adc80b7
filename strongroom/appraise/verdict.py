"""Is a genuine machine acceptable? Every check is made and recorded, also after one has failed.

A verdict on simulated silicon says INSECURE-SIMULATED wherever it is shown, passed or not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from strongroom.appraise.policy import Policy
from strongroom.errors import FormatError, PolicyError
from strongroom.evidence.snp import TCB
from strongroom.verify.claims import ALIAS_CHECK_COMPLETE, Claims
from strongroom.verify.roots import SIMULATED_LABEL
from strongroom.wire.canonical import JSON, parse_json


@dataclass(frozen=True, slots=True)
class Result:
    """One check: what was found, what the policy wants."""

    check: str
    passed: bool
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.check} is {self.found}, want {self.wanted}"


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
    """The verdict of `policy` on verified claims at `now` (with a zone)."""
    results = [
        _root(claims, policy),
        Result("product", claims.product in policy.products, claims.product, _any_of(policy.products)),
        _leaf(claims, policy),
        _measurement(claims, policy, now),
        _host_data(claims, policy),
        Result("debug", not claims.debug, "on" if claims.debug else "off", "off"),
        Result("migration", not claims.migration, "possible" if claims.migration else "off", "off"),
        Result("vmpl", claims.vmpl in policy.vmpl, str(claims.vmpl), _any_of(map(str, policy.vmpl))),
        _floor("reported tcb", claims.reported_tcb, policy.minimum_tcb),
        # The host cannot go below the committed level; reported alone could be raised for one report only.
        _floor("committed tcb", claims.committed_tcb, policy.minimum_tcb),
        _alias_check(claims, policy),
        *_model(claims, policy),
        *_engine(claims, policy),
        Result("gpus", claims.gpus == policy.gpus, str(claims.gpus), str(policy.gpus)),
    ]
    return Verdict(tuple(results), claims.simulated, claims.not_checked)


def _root(claims: Claims, policy: Policy) -> Result:
    if not claims.simulated:
        return Result("root", True, "amd", "amd")
    found = f"{SIMULATED_LABEL} {claims.root_sha256.hex()}"
    listed = claims.root_sha256 in policy.insecure_simulated_roots
    return Result("root", listed, found, "amd, or a simulated root the policy names")


def _leaf(claims: Claims, policy: Policy) -> Result:
    if claims.leaf == "vcek":
        return Result("signing key", True, "the chip's own", "the chip's own")
    wanted = _any_of(("the chip's own", *policy.vlek_providers))
    return Result("signing key", claims.csp_id in policy.vlek_providers, f"of {claims.csp_id}", wanted)


def _measurement(claims: Claims, policy: Policy, now: datetime) -> Result:
    found = claims.measurement.hex()
    matches = [reference for reference in policy.measurements if reference.value == claims.measurement]
    accepted = policy.accepted_on(now)
    if any(reference in accepted for reference in matches):
        return Result("measurement", True, found, matches[0].name)
    if matches:
        return Result("measurement", False, f"{matches[0].name} outside its days", "one accepted today")
    return Result("measurement", False, found, _any_of(reference.name for reference in accepted))


def _host_data(claims: Claims, policy: Policy) -> Result:
    found = claims.host_data.hex()
    if policy.host_data is None:
        return Result("host_data", True, found, "any")
    wanted = _any_of(sorted(value.hex() for value in policy.host_data))
    return Result("host_data", claims.host_data in policy.host_data, found, wanted)


def _floor(check: str, tcb: TCB, minimum: Mapping[str, int]) -> Result:
    levels = tcb.levels()
    # A floor for a component this processor does not have is not met: unknown means no.
    passed = all(levels.get(name, -1) >= level for name, level in minimum.items())
    return Result(check, passed, _words(levels), f"at least {_words(minimum)}" if minimum else "any")


def _alias_check(claims: Claims, policy: Policy) -> Result:
    complete = bool(claims.platform_info & ALIAS_CHECK_COMPLETE)
    passed = complete or not policy.require_alias_check
    wanted = "complete" if policy.require_alias_check else "any"
    return Result("memory alias check", passed, "complete" if complete else "not complete", wanted)


def _model(claims: Claims, policy: Policy) -> list[Result]:
    rule = policy.model
    if rule is None:
        return []
    event, problem = _event(claims, "model")
    root, epoch = event.get("root"), event.get("epoch")
    results = []
    if rule.root is not None:
        want = rule.root.hex()
        results.append(Result("model root", root == want, problem or _show(root), want))
    if rule.minimum_epoch is not None:
        fresh = type(epoch) is int and epoch >= rule.minimum_epoch
        results.append(
            Result("model epoch", fresh, problem or _show(epoch), f"at least {rule.minimum_epoch}")
        )
    return results


def _engine(claims: Claims, policy: Policy) -> list[Result]:
    if policy.engine_versions is None:
        return []
    event, problem = _event(claims, "engine")
    version = event.get("version")
    passed = isinstance(version, str) and version in policy.engine_versions
    return [Result("engine version", passed, problem or _show(version), _any_of(policy.engine_versions))]


def _event(claims: Claims, name: str) -> tuple[dict[str, JSON], str]:
    """The event as an object; or an empty one, and in words why there is none."""
    if claims.events is None:
        return {}, "unknown without an event log"
    try:
        payload = claims.events.find(name)
        if payload is None:
            return {}, "not in the event log"
        value = parse_json(payload, f"event {name}")
    except FormatError as error:
        return {}, f"unreadable ({error})"
    return (value, "") if isinstance(value, dict) else ({}, "unreadable (not an object)")


def _any_of(names: Iterable[str]) -> str:
    return " or ".join(names) or "nothing"


def _words(levels: Mapping[str, int]) -> str:
    return " ".join(f"{name}={level}" for name, level in levels.items())


def _show(value: JSON) -> str:
    return (
        value if isinstance(value, str) and value.isprintable() and len(value) <= 100 else ascii(value)[:100]
    )
