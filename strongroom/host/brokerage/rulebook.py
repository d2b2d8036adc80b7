"""Everything that decides, as one value: resources and their versions, reference values, revocations, administrators.

It is read whole and authenticated whole, with a MAC under the root key over a serial number, every row and the digest
of every secret as it is sealed. The MAC stands in the audit log's checkpoint (ledger.py). A row that something else
than the broker added, changed, removed or put back closes the house: no question is answered under it.
"""

import hmac
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

from strongroom.appraise.policy import Policy
from strongroom.broker.reference import ReferenceValues, SignedReferences
from strongroom.broker.resource import ResourceURI
from strongroom.errors import StrongroomError, VerifyError
from strongroom.host.brokerage.ledger import Checkpoint
from strongroom.host.brokerage.rule import Rule
from strongroom.host.brokerage.sealing import Seal
from strongroom.verify.roots import PRODUCTION, Roots
from strongroom.wire.canonical import JSON, pack_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One secret a resource has had. The secret itself stays in the database."""

    number: int
    epoch: int
    created: str
    sealed_sha256: bytes  # of its record


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    uri: ResourceURI
    rule: Rule
    versions: tuple[Version, ...]  # oldest first
    last: int  # the highest number ever

    def find(self, number: int) -> Version | None:
        return next((version for version in self.versions if version.number == number), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What is not released any more, or not to whom."""

    kind: str  # "measurement" or "epoch"
    subject: str  # lowercase hex, or a URI
    epoch: int  # of kind "epoch": this one and every older one
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator:
    name: str
    key: bytes
    role: str  # "administrator", or "auditor", who only reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook:
    serial: int
    resources: Mapping[ResourceURI, Resource]
    references: Mapping[str, tuple[bytes, ReferenceValues]]  # signer, values
    revocations: tuple[Revocation, ...]
    administrators: Mapping[bytes, Administrator]
    _policies: dict[tuple[Rule, frozenset[str]], Policy | None] = field(default_factory=dict, repr=False)
    _roots: dict[frozenset[str], Roots] = field(default_factory=dict, repr=False)  # by the sets that hold

    def holding(self, now: datetime) -> dict[str, ReferenceValues]:
        """The sets of reference values that hold at `now`."""
        return {name: values for name, (_, values) in self.references.items() if values.holds_at(now)}

    def policy(self, resource: Resource, now: datetime) -> Policy | None:
        """What the resource wants at `now`; None where Rego alone decides. ConfigError when nothing is left of it."""
        holding = self.holding(now)
        key = (resource.rule, frozenset(holding))
        if key not in self._policies:
            self._policies[key] = resource.rule.composed(holding, f"policy of {resource.uri}")
        return self._policies[key]

    def roots(self, now: datetime) -> Roots:
        """The production roots, and every simulated one and every TPM that some policy names."""
        holding = frozenset(self.holding(now))
        if holding not in self._roots:
            believed = PRODUCTION
            for resource in self.resources.values():
                try:
                    policy = self.policy(resource, now)
                except StrongroomError:  # it guards its own resource by being broken
                    continue
                if policy is not None:
                    named = policy.roots
                    believed = believed.with_insecure(named.insecure).with_tpm_keys(named.tpm_keys)
            self._roots[holding] = believed
        return self._roots[holding]

    def revoked_measurements(self) -> Mapping[bytes, str]:
        return {
            bytes.fromhex(one.subject): one.reason for one in self.revocations if one.kind == "measurement"
        }

    def epoch_floor(self, uri: ResourceURI) -> Revocation | None:
        """The revocation of this resource's older epochs."""
        return next((one for one in self.revocations if (one.kind, one.subject) == ("epoch", str(uri))), None)

    def current(self, resource: Resource) -> Version | None:
        """The newest version that is not revoked."""
        floor = self.epoch_floor(resource.uri)
        alive = [one for one in resource.versions if floor is None or one.epoch > floor.epoch]
        return alive[-1] if alive else None


EMPTY: Final = Rulebook(
    serial=0,
    resources=MappingProxyType({}),
    references=MappingProxyType({}),
    revocations=(),
    administrators=MappingProxyType({}),
)


def mac(connection: sqlite3.Connection, seal: Seal, serial: int) -> bytes:
    """What authenticates the rules as they are in this transaction."""
    return seal.mac("rules", _Rows(connection, serial).stated)


def load(connection: sqlite3.Connection, seal: Seal, at: Checkpoint) -> Rulebook:
    """The rules as the broker last left them. VerifyError when a row is not."""
    rows = _Rows(connection, at.serial)
    if not hmac.compare_digest(at.rules, seal.mac("rules", rows.stated)):
        raise VerifyError(
            "broker rules: changed by something else than the broker, or under another root key"
        )
    return rows.book()


class _Rows:
    """All rows that decide, and the one way to write them down."""

    def __init__(self, connection: sqlite3.Connection, serial: int) -> None:
        def rows(query: str) -> list[tuple[Any, ...]]:
            return connection.execute(query).fetchall()

        self.serial = serial
        self.resources = rows("SELECT uri, policy, rego, last FROM resource ORDER BY uri")
        self.versions = [
            (*row, sha256(sealed).digest())
            for *row, sealed in rows(
                "SELECT uri, number, epoch, created, sealed FROM version ORDER BY uri, number"
            )
        ]
        self.references = rows("SELECT name, signer, file FROM reference ORDER BY name")
        self.revocations = rows("SELECT kind, subject, epoch, reason FROM revocation ORDER BY kind, subject")
        self.administrators = rows("SELECT key, name, role FROM administrator ORDER BY key")

    @property
    def stated(self) -> bytes:
        tables: dict[str, JSON] = {
            name: [[_digested(cell) for cell in row] for row in getattr(self, name)]
            for name in ("resources", "versions", "references", "revocations", "administrators")
        }
        return pack_json({"serial": self.serial, **tables})

    def book(self) -> Rulebook:
        versions: dict[str, list[Version]] = {}
        for text, number, epoch, created, sealed in self.versions:
            version = Version(number=number, epoch=epoch, created=created, sealed_sha256=sealed)
            versions.setdefault(text, []).append(version)
        resources = {
            (uri := ResourceURI.parse(text)): Resource(
                uri=uri,
                rule=Rule(policy=policy, rego=rego),
                versions=tuple(versions.get(text, ())),
                last=last,
            )
            for text, policy, rego, last in self.resources
        }
        return Rulebook(
            serial=self.serial,
            resources=MappingProxyType(resources),
            references=MappingProxyType(
                {
                    name: (signer, SignedReferences.parse(file).verify(signer))
                    for name, signer, file in self.references
                }
            ),
            revocations=tuple(
                Revocation(kind=kind, subject=subject, epoch=epoch, reason=reason)
                for kind, subject, epoch, reason in self.revocations
            ),
            administrators=MappingProxyType(
                {key: Administrator(name=name, key=key, role=role) for key, name, role in self.administrators}
            ),
        )


def _digested(cell: str | bytes | int | None) -> JSON:
    """Numbers as they are; of text and bytes the SHA-256, with what kind it was."""
    if cell is None or isinstance(cell, int):
        return cell
    if isinstance(cell, str):
        return f"text {sha256(cell.encode()).hexdigest()}"
    return f"bytes {sha256(cell).hexdigest()}"
