"""What the broker's desk asks of the room behind it: roots, policies, and the resources they guard."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from strongroom.appraise.verdict import appraise
from strongroom.broker.desk import Ruling
from strongroom.broker.proof import Proof
from strongroom.broker.resource import ResourceURI
from strongroom.errors import VerifyError
from strongroom.host.shelf import Shelf
from strongroom.verify.bundle import verify_kbs
from strongroom.verify.claims import Claims
from strongroom.verify.roots import PRODUCTION, SIMULATED_LABEL, Roots

_SHOWN: Final = 16  # hex digits of a policy's digest in an audit line


@dataclass(frozen=True, slots=True)
class ShelfKeeper:
    """Judges by the policies on a shelf (see `desk.Keeper`). Simulated roots count only where a policy names them."""

    shelf: Shelf

    def verify(self, proof: Proof, now: datetime) -> bool:
        """Genuine under any root that any resource accepts: nothing is released by this."""
        named = {root for policy in self.shelf.policies() for root in policy.insecure_simulated_roots}
        return _claims(proof, PRODUCTION.with_insecure(named), now).simulated

    def judge(self, uri: ResourceURI, proof: Proof, now: datetime) -> Ruling | None:
        """Verified once more, under the roots of this resource alone: another's simulated root opens nothing here."""
        resource = self.shelf.take(uri)
        if resource is None:
            return None
        rule = f"policy {resource.policy_sha256.hex()[:_SHOWN]}"
        try:
            claims = _claims(proof, resource.policy.roots, now)
        except VerifyError as error:
            return Ruling(rule, (str(error),))
        if claims.simulated:
            rule = f"{rule} {SIMULATED_LABEL}"
        verdict = appraise(claims, resource.policy, now=now)
        if not verdict.passed:
            return Ruling(rule, verdict.reasons)
        return Ruling(rule, payload=resource.payload)


def _claims(proof: Proof, roots: Roots, now: datetime) -> Claims:
    return verify_kbs(proof.report, proof.certificates, digest=proof.digest, roots=roots, now=now)
