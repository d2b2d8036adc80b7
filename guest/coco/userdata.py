"""The section `coco` of userdata -> a frozen Coco. Every error is a ConfigError that names the key path.

port: 8006            on 127.0.0.1; left out, there is the unix socket alone
eventlog: false
rules:                the default is nobody
  - {unit: api.service, resources: [default/db/], allow: [evidence]}
  - {uid: 1000, resources: [default/app/key]}
signers: [{kid: "kbs:///default/signer/key", x: "...", y: "..."}]
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from guest import bounds
from guest.coco.plan import Plan
from guest.coco.rules import Right, Rule, Rules
from guest.section import Section, by_caller, distinct, list_of, mapping
from strongroom.errors import ConfigError, FormatError
from strongroom.keys.jwk import parse_point


@dataclass(frozen=True, slots=True, kw_only=True)
class Coco:
    """What programs written for Confidential Containers may have."""

    plan: Plan
    eventlog: bool  # whether an event log of their form is kept, on a machine with a vTPM


def parse_coco(raw: Section) -> Coco:
    nothing: list[object] = []
    rules = raw.value("rules", list_of(bounds.RULES_MAX))
    units, uids = by_caller(rules, raw.path("rules"), _rule)
    signers = [
        _signer(item, f"{raw.path('signers')}[{n}]")
        for n, item in enumerate(raw.value("signers", list_of(bounds.SIGNERS_MAX), default=nothing))
    ]
    distinct((kid for kid, _ in signers), f"{raw.path('signers')}: kid")
    plan = Plan(
        rules=Rules(units=units, uids=uids),
        port=raw.value("port", bounds.PORT.check) if raw.has("port") else None,
        signers=dict(signers),
    )
    coco = Coco(plan=plan, eventlog=raw.value("eventlog", bounds.FLAG.check, default=False))
    raw.end()
    return coco


def _rule(raw: Section) -> Rule:
    nothing: list[object] = []
    right = bounds.OneOf(tuple(Right)).check
    resources = raw.value("resources", list_of(bounds.PATHS_MAX), default=nothing)
    allow = raw.value("allow", list_of(len(Right)), default=nothing)
    rule = Rule(
        resources=tuple(
            bounds.RESOURCE_PATTERN.check(pattern, f"{raw.path('resources')}[{n}]")
            for n, pattern in enumerate(resources)
        ),
        allow=frozenset(Right(right(name, f"{raw.path('allow')}[{n}]")) for n, name in enumerate(allow)),
    )
    raw.end()
    return rule


def _signer(raw: object, at: str) -> tuple[str, EllipticCurvePublicKey]:
    section = Section(mapping(raw, at), at)
    kid = section.value("kid", bounds.KID.check)
    x, y = (section.value(name, bounds.COORDINATE.check) for name in ("x", "y"))
    section.end()
    try:
        return kid, parse_point({"kty": "EC", "crv": "P-256", "x": x, "y": y}, at)
    except FormatError as error:
        raise ConfigError(str(error)) from None
