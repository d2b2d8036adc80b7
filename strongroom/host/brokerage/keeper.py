"""What the broker's desk asks of the house: is it genuine, and may it have this?

A resource is given when its evidence verifies under the roots its own policy names, its policy accepts what was
verified, its Rego allows, and neither the measurement nor the version asked for is revoked. Every reason is said.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from strongroom.appraise.ear import ear_claims
from strongroom.appraise.policy import Policy
from strongroom.appraise.verdict import Verdict, appraise
from strongroom.broker.desk import Question, Ruling
from strongroom.broker.proof import Finding, Proof
from strongroom.errors import ConfigError, VerifyError
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.rego import rego_refusal
from strongroom.host.brokerage.rulebook import Resource, Rulebook, Version
from strongroom.host.genuine import Verifier, Verify, finding
from strongroom.verify.claims import Claims
from strongroom.verify.roots import PRODUCTION, SIMULATED_LABEL
from strongroom.wire.canonical import JSON

_VERSION: Final = "version"  # in the query of a request
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class HouseKeeper:
    """Judges by the rules of a house as they are at each question (see `desk.Keeper`)."""

    house: House
    claims: Verify = field(default_factory=Verifier)

    def verify(self, proof: Proof, now: datetime) -> Finding:
        """Genuine under any root that any resource accepts: nothing is released by this."""
        return finding(self.claims(proof, self.house.rules().roots(now), now))

    def judge(self, question: Question, proof: Proof, now: datetime) -> Ruling | None:
        """Verified once more, under the roots of this resource alone: another's simulated root opens nothing here."""
        rules = self.house.rules()
        resource = rules.resources.get(question.uri)
        if resource is None:
            return None
        rule = resource.rule.name
        try:
            policy = rules.policy(resource, now)
        except ConfigError as error:  # what it builds on holds no more
            return Ruling(rule, (str(error),))
        try:
            claims = self.claims(proof, PRODUCTION if policy is None else policy.roots, now)
        except VerifyError as error:
            return Ruling(rule, (str(error),))
        if claims.simulated:
            rule = f"{rule} {SIMULATED_LABEL}"
        version, reasons = _version(rules, resource, question.query)
        if claims.debug and policy is None:  # a policy says it in its own words
            reasons.append("debug is on, want a guest its host cannot look into")
        reasons += [*_revoked(rules, claims), *_refusals(resource, policy, claims, question, now)]
        number = None if version is None else version.number
        if reasons or version is None:
            return Ruling(rule, tuple(reasons), version=number)
        return Ruling(rule, payload=self.house.secret(resource.uri, version), version=number)


def measured(claims: Claims) -> Iterator[bytes]:
    """Every value that what was booted decides: launch measurement, runtime registers, PCRs."""
    yield claims.measurement
    if claims.tdx is not None:
        yield from claims.tdx.body.rtmrs
    if claims.tpm is not None:
        yield from claims.tpm.pcrs.values()


def _version(
    rules: Rulebook, resource: Resource, query: Mapping[str, str]
) -> tuple[Version | None, list[str]]:
    if unknown := query.keys() - {_VERSION}:
        return None, [f"query {ascii(min(unknown))[:40]} is unknown, want version=NUMBER or none"]
    asked, floor = query.get(_VERSION), rules.epoch_floor(resource.uri)
    if asked is None:
        if (current := rules.current(resource)) is not None:
            return current, []
        wanted = "a version" if floor is None else f"an epoch after {floor.epoch}, which is revoked"
        return None, [f"resource has no version to release, want {wanted}"]
    found = resource.find(int(asked)) if _NUMBER.fullmatch(asked) else None
    if found is None:
        return None, [f"version {ascii(asked)[:40]} does not exist"]
    if floor is not None and found.epoch <= floor.epoch:
        return found, [f"version {found.number} is of epoch {found.epoch}, which is revoked: {floor.reason}"]
    return found, []


def _revoked(rules: Rulebook, claims: Claims) -> Iterator[str]:
    revoked = rules.revoked_measurements()
    for value in dict.fromkeys(measured(claims)):
        if value in revoked:
            yield f"measurement {value.hex()} is revoked: {revoked[value]}"


def _refusals(
    resource: Resource, policy: Policy | None, claims: Claims, question: Question, now: datetime
) -> Iterator[str]:
    verdict = None if policy is None else appraise(claims, policy, now=now)
    if verdict is not None:
        yield from verdict.reasons if not verdict.passed else ()
        if not (verdict.passed or verdict.reasons):
            yield "nothing was checked"
    if resource.rule.rego is not None:
        uri = question.uri
        asked: dict[str, JSON] = {
            "plugin": "resource",
            "resource-path": [uri.repository, uri.type, uri.tag],
            "query": dict(question.query),
        }
        told = _appraised(question.claims, verdict, claims, resource.rule.name, now)
        if refusal := rego_refusal(resource.rule.rego, told, asked):
            yield refusal


def _appraised(
    token: Mapping[str, JSON], verdict: Verdict | None, claims: Claims, rule: str, now: datetime
) -> Mapping[str, JSON]:
    """A token's claims, with what the policy beside the Rego found in the place of what was not judged yet."""
    if verdict is None:
        return token
    ours, theirs = ear_claims(verdict, claims, policy_id=rule, now=now)["submods"], token.get("submods")
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return token
    judged = ("ear.status", "ear.trustworthiness-vector", "ear.appraisal-policy-id")
    submods: dict[str, JSON] = {}
    for name, submod in theirs.items():
        found = ours.get(name)
        told = {key: found[key] for key in judged} if isinstance(found, dict) else {}
        submods[name] = submod | told if isinstance(submod, dict) else submod
    return {**token, "submods": submods}
