"""What a policy says of SEV-SNP hardware. A fact that the evidence lacks is a check that fails."""

from collections.abc import Mapping
from datetime import datetime

from strongroom.appraise.policy import Policy
from strongroom.appraise.result import Aspect, Result, any_of
from strongroom.appraise.window import matched
from strongroom.evidence.snp import TCB
from strongroom.verify.claims import ALIAS_CHECK_COMPLETE, Claims


def appraise_snp(claims: Claims, policy: Policy, now: datetime) -> list[Result]:
    """One result for each check, in a fixed order."""
    return [
        Result(
            "product",
            claims.product in policy.products,
            claims.product,
            any_of(policy.products),
            Aspect.HARDWARE,
        ),
        _leaf(claims, policy),
        _measurement(claims, policy, now),
        _host_data(claims, policy),
        Result("debug", not claims.debug, "on" if claims.debug else "off", "off"),
        Result("migration", not claims.migration, "possible" if claims.migration else "off", "off"),
        Result("vmpl", claims.vmpl in policy.vmpl, str(claims.vmpl), any_of(map(str, policy.vmpl))),
        _floor("reported tcb", claims.reported_tcb, policy.minimum_tcb),
        # The host cannot go below the committed level; reported alone could be raised for one report only.
        _floor("committed tcb", claims.committed_tcb, policy.minimum_tcb),
        _alias_check(claims, policy),
    ]


def _leaf(claims: Claims, policy: Policy) -> Result:
    if claims.leaf == "vcek":
        return Result("signing key", True, "the chip's own", "the chip's own", Aspect.HARDWARE)
    wanted = any_of(("the chip's own", *policy.vlek_providers))
    passed = claims.csp_id in policy.vlek_providers
    return Result("signing key", passed, f"of {claims.csp_id}", wanted, Aspect.HARDWARE)


def _measurement(claims: Claims, policy: Policy, now: datetime) -> Result:
    matches = [reference for reference in policy.measurements if reference.value == claims.measurement]
    return matched("measurement", claims.measurement.hex(), matches, policy.measurements, now)


def _host_data(claims: Claims, policy: Policy) -> Result:
    found = claims.host_data.hex()
    if policy.host_data is None:
        return Result("host_data", True, found, "any")
    wanted = any_of(sorted(value.hex() for value in policy.host_data))
    return Result("host_data", claims.host_data in policy.host_data, found, wanted)


def _floor(check: str, tcb: TCB | None, minimum: Mapping[str, int]) -> Result:
    levels = tcb.levels() if tcb is not None else {}
    # A floor for a component this processor does not have is not met: unknown means no.
    passed = bool(levels) and all(levels.get(name, -1) >= level for name, level in minimum.items())
    wanted = f"at least {_words(minimum)}" if minimum else "any"
    return Result(check, passed, _words(levels) or "unknown", wanted, Aspect.HARDWARE)


def _alias_check(claims: Claims, policy: Policy) -> Result:
    complete = bool((claims.platform_info or 0) & ALIAS_CHECK_COMPLETE)
    passed = complete or not policy.require_alias_check
    found, wanted = (
        "complete" if complete else "not complete",
        "complete" if policy.require_alias_check else "any",
    )
    return Result("memory alias check", passed, found, wanted, Aspect.HARDWARE)


def _words(levels: Mapping[str, int]) -> str:
    return " ".join(f"{name}={level}" for name, level in levels.items())
