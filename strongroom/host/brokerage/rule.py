"""Whom one resource is for: a policy of ours in YAML, a policy in Rego, or both, and then both must agree.

The YAML is the language of strongroom.appraise.policy with one key more:

    reference_values: [NAME, ...]     sets the broker has imported; while they hold, their measurements stand beside
                                      those written here: `snp` in measurements (where there is host_data), `tdx` in
                                      tdx.images, `tpm` in tpm.states (where there is that section)
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from strongroom.appraise.policy import Policy
from strongroom.appraise.raw import Raw
from strongroom.broker.reference import ReferenceValues
from strongroom.errors import ConfigError
from strongroom.host.brokerage.rego import check_rego
from strongroom.host.yamltext import parse_yaml
from strongroom.wire.framing import enc

MAX_POLICY: Final = 256 << 10  # bytes
_NAMES: Final = "reference_values"
_SHOWN: Final = 16  # hex digits of a rule's digest in an audit line
_SECTIONS: Final = {"tdx": "images", "tpm": "states"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The texts as they were given."""

    policy: str | None
    rego: str | None

    @property
    def name(self) -> str:
        """What an audit line calls it: a part of the digest of both texts."""
        texts = enc((self.policy or "").encode()) + enc((self.rego or "").encode())
        return f"policy {sha256(texts).hexdigest()[:_SHOWN]}"

    def check(self, references: Mapping[str, ReferenceValues], subject: str) -> None:
        """ConfigError for a rule that could never release: unreadable, or with a condition no evidence here meets."""
        if self.policy is None and self.rego is None:
            raise ConfigError(
                f"{subject}: none given, want --policy FILE (YAML, or Rego in a file named .rego)"
            )
        if self.rego is not None:
            check_rego(self.rego, f"rego of {subject}")
        if self.policy is None:
            return
        raw = self._raw(subject)
        for name in _names(raw, subject):
            if name not in references:
                raise ConfigError(f"{subject}.{_NAMES}: no set {name}, want it imported")
            if not _merged(raw, references[name]):
                raise ConfigError(f"{subject}.{_NAMES}: {name} has nothing for a section of this policy")
        _require_answerable(self.composed(references, subject), subject)

    def composed(self, references: Mapping[str, ReferenceValues], subject: str = "policy") -> Policy | None:
        """The policy with what `references` has of the sets it names; None where there is only Rego.

        A set that is not there accepts nothing. ConfigError when nothing acceptable is left.
        """
        if self.policy is None:
            return None
        raw = self._raw(subject)
        names = _names(raw, subject)
        raw.pop(_NAMES, None)
        for name in names:
            if name in references:
                _merged(raw, references[name])
        try:
            return Policy.from_raw(raw, subject)
        except ConfigError as error:
            if missing := [name for name in names if name not in references]:
                raise ConfigError(
                    f"{subject}.{_NAMES}: {missing[0]} is not there or holds no more, and nothing else is accepted"
                ) from error
            raise

    def _raw(self, subject: str) -> dict[str, Any]:
        if self.policy is None:
            return {}
        return copy.deepcopy(parse_yaml(self.policy, subject, max_bytes=MAX_POLICY))


def _names(raw: Mapping[str, Any], subject: str) -> tuple[str, ...]:
    if _NAMES not in raw:
        return ()
    return tuple(item.text() for item in Raw(raw[_NAMES], f"{subject}.{_NAMES}").items())


def _merged(raw: dict[str, Any], values: ReferenceValues) -> bool:
    """Whether some measurement found its place."""
    placed = False
    for one in values.measurements:
        target = _target(raw, one.kind)
        if target is not None:
            target.append(one.for_policy())
            placed = True
    return placed


def _target(raw: dict[str, Any], kind: str) -> list[Any] | None:
    if kind == "snp":
        return _list(raw, "measurements") if "host_data" in raw else None
    section = raw.get(kind)
    return _list(section, _SECTIONS[kind]) if isinstance(section, dict) else None


def _list(section: dict[str, Any], name: str) -> list[Any] | None:
    found = section.setdefault(name, [])
    return found if isinstance(found, list) else None  # the policy's own reading refuses it


def _require_answerable(policy: Policy | None, subject: str) -> None:
    if policy is not None and policy.model is not None:
        raise ConfigError(f"{subject}.model: it is mounted only with a key from here, want it left out")
