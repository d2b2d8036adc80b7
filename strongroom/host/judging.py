"""Evidence of one machine, found genuine piece by piece and judged by one policy, at one time, with one collateral."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Self

from strongroom.appraise.policy import Policy
from strongroom.appraise.verdict import Verdict, appraise
from strongroom.errors import FormatError
from strongroom.evidence.binding import Purpose, receipt_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import Collateral
from strongroom.host.collateral.supply import Supplied
from strongroom.ratls.acceptance import accept
from strongroom.ratls.certificate import extract
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.one_boot import check_one_boot
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import JSON, unb64u

_FAR: Final = 1 << 37  # unix seconds; datetime holds no later year


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One piece of evidence: genuine, and judged."""

    purpose: Purpose
    bundle: Bundle
    claims: Claims
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Signer:
    """What a door shows for its receipt key. Not verified."""

    key: bytes  # DER SubjectPublicKeyInfo
    not_before: datetime
    bundle: Bundle

    @classmethod
    def from_json(cls, value: JSON, subject: str) -> Self:
        inner = members(value, {"key", "not_before", "bundle"}, subject)
        key, not_before = inner["key"], inner["not_before"]
        if not isinstance(key, str) or type(not_before) is not int or not 0 <= not_before < _FAR:
            raise FormatError(f"{subject}: want key as text and not_before in unix seconds")
        if not_before % 60:  # evidence commits to minutes: loose seconds could be changed unseen
            raise FormatError(f"{subject}: not_before is {not_before}, want a whole minute")
        bundle = Bundle.from_json(inner["bundle"])
        return cls(unb64u(key, f"{subject}.key"), datetime.fromtimestamp(not_before, UTC), bundle)


@dataclass(frozen=True, slots=True)
class Judge:
    """`own` is the caller's collateral; `carried` what the machine brought, for bundles that bring none."""

    policy: Policy
    roots: Roots
    now: datetime
    own: Supplied
    carried: Collateral

    def certificate(self, der: bytes) -> Finding:
        claims = accept(
            der,
            roots=self.roots,
            now=self.now,
            issuers=self.own.certificates,
            collateral=self.own.collateral,
            carried=self.carried,
        )
        return self._finding(Purpose.RA_TLS, extract(der), claims)

    def bundle(self, bundle: Bundle, purpose: Purpose, challenge: bytes, key: bytes) -> Finding:
        claims = verify_bundle(
            bundle if bundle.collateral else replace(bundle, collateral=self.carried),
            purpose=purpose,
            challenge=challenge,
            key=key,
            roots=self.roots,
            now=self.now,
            issuers=self.own.certificates,
            collateral=self.own.collateral,
        )
        return self._finding(purpose, bundle, claims)

    def signer(self, signer: Signer) -> Finding:
        challenge = receipt_challenge(signer.not_before)
        return self.bundle(signer.bundle, Purpose.RECEIPT_KEY, challenge, signer.key)

    def _finding(self, purpose: Purpose, bundle: Bundle, claims: Claims) -> Finding:
        verdict = appraise(claims, self.policy, now=self.now)
        return Finding(purpose=purpose, bundle=bundle, claims=claims, verdict=verdict)


def one_machine(now: Claims, other: Claims, name: str) -> None:
    """VerifyError unless evidence called `name` is of the boot that is evident `now`."""
    # Two acceptable machines, or two boots of one, that share a key: the key has left one of them.
    check_one_boot(other, now, name)


def reasons(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Every distinct reason against a machine, in the order of `findings`."""
    return tuple(dict.fromkeys(reason for finding in findings for reason in finding.verdict.reasons))


def members(value: JSON, keys: set[str], subject: str) -> dict[str, JSON]:
    """The object that has exactly these keys, or FormatError."""
    if not isinstance(value, dict) or value.keys() != keys:
        raise FormatError(f"{subject}: want exactly the keys {', '.join(sorted(keys))}")
    return value
