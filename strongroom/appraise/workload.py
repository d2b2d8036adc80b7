"""What a policy says of the workload, read from the event log that the evidence commits to."""

from strongroom.appraise.policy import ModelRule, Policy
from strongroom.appraise.result import Aspect, Result, any_of
from strongroom.errors import FormatError
from strongroom.verify.claims import Claims
from strongroom.wire.canonical import JSON, parse_json


def appraise_workload(claims: Claims, policy: Policy) -> list[Result]:
    """One result for each check the policy asks for, in a fixed order."""
    return [*_model(claims, policy), *_engine(claims, policy)]


def _model(claims: Claims, policy: Policy) -> list[Result]:
    rule = policy.model
    if rule is None:
        return []
    event, problem = _event(claims, "model")
    root, epoch = event.get("root"), event.get("epoch")
    results = []
    if rule.root is not None:
        want = rule.root.hex()
        results.append(Result("model root", root == want, problem or _show(root), want, Aspect.FILE_SYSTEM))
    if rule.minimum_epoch is not None:
        fresh = type(epoch) is int and epoch >= rule.minimum_epoch
        wanted = f"at least {rule.minimum_epoch}"
        results.append(Result("model epoch", fresh, problem or _show(epoch), wanted, Aspect.FILE_SYSTEM))
    return results + _pushed(claims, rule)


def _pushed(claims: Claims, rule: ModelRule) -> list[Result]:
    """What was pushed into the guest, and by whom."""
    event, problem = _event(claims, "pushed")
    results = []
    for name, key, accepted in (
        ("pushed manifest", "manifest_sha256", None if rule.manifest is None else {rule.manifest}),
        ("pushed by", "provider_sha256", rule.providers),
    ):
        if accepted is not None:
            found, wanted = event.get(key), [digest.hex() for digest in sorted(accepted)]
            passed = isinstance(found, str) and found in wanted
            shown = problem or _show(found)
            results.append(Result(name, passed, shown, any_of(wanted), Aspect.FILE_SYSTEM))
    return results


def _engine(claims: Claims, policy: Policy) -> list[Result]:
    if policy.engine_versions is None:
        return []
    event, problem = _event(claims, "engine")
    version = event.get("version")
    passed = isinstance(version, str) and version in policy.engine_versions
    wanted = any_of(policy.engine_versions)
    return [Result("engine version", passed, problem or _show(version), wanted, Aspect.EXECUTABLES)]


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


def _show(value: JSON) -> str:
    return (
        value if isinstance(value, str) and value.isprintable() and len(value) <= 100 else ascii(value)[:100]
    )
