"""What a policy says of a vTPM's quote: the section `tpm`.

    states: [{name: NAME, pcrs: {pcr4: HEX64, pcr15: events, ...}, from: DATE?, until: DATE?}]      required
    keys: [HEX64, ...]      SHA-256 of attestation keys (DER SPKI) that are believed by name       default: none

A state is accepted whole, and every PCR it names must be in the quote. The word events wants a PCR to be what
the events of the log make of it: extended, for each event, with the SHA-256 of the head after it.

With `keys`, a machine that has no confidential hardware, and nothing but one of these TPMs, is accepted too: whoever
holds that machine can read its memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from strongroom.appraise.raw import Raw
from strongroom.appraise.result import Aspect, Result, refused
from strongroom.appraise.window import KEYS, Named, matched, window
from strongroom.errors import ConfigError
from strongroom.evidence.eventlog import EventLog
from strongroom.verify.tpm import TPMClaims

EVENTS: Final = "events"
_NAMES: Final = {f"pcr{index}": index for index in range(24)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TPMState(Named):
    """Accepted values of some PCRs (SHA-256 bank) together."""

    pcrs: Mapping[int, bytes | str]

    def fits(self, pcrs: Mapping[int, bytes], events: EventLog | None) -> bool:
        return all(pcrs.get(index) == _value(want, events) is not None for index, want in self.pcrs.items())

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        members = raw.mapping({*KEYS, "pcrs"}, required={"name", "pcrs"})
        pcrs = members["pcrs"].mapping(_NAMES.keys())
        if not pcrs:
            raise ConfigError(f"{raw.at}.pcrs: empty, want at least one")
        values = {_NAMES[name]: EVENTS if one.value == EVENTS else one.hex(32) for name, one in pcrs.items()}
        return cls(pcrs=values, **window(members))


@dataclass(frozen=True, slots=True, kw_only=True)
class TPMPolicy:
    states: tuple[TPMState, ...]
    keys: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        if not self.states or not all(state.pcrs for state in self.states):
            raise ConfigError("policy.tpm.states: empty, want at least one, with at least one pcr")

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        members = raw.mapping({"states", "keys"}, required={"states"})
        keys = members["keys"].items() if "keys" in members else []
        return cls(
            states=tuple(TPMState.from_raw(item) for item in members["states"].items()),
            keys=frozenset(key.hex(32) for key in keys),
        )


def appraise_tpm(
    claims: TPMClaims | None, policy: TPMPolicy | None, events: EventLog | None, now: datetime
) -> list[Result]:
    """One result where there is a quote or a section."""
    if policy is None:
        return [] if claims is None else [refused("tpm quote", "present", "tpm")]
    if claims is None:
        return [Result("tpm quote", False, "absent", "one", Aspect.EXECUTABLES)]
    fitting = [state for state in policy.states if state.fits(claims.pcrs, events)]
    found = " ".join(f"pcr{index}={value.hex()}" for index, value in sorted(claims.pcrs.items()))
    return [matched("tpm state", found, fitting, policy.states, now)]


def _value(want: bytes | str, events: EventLog | None) -> bytes | None:
    if isinstance(want, bytes):
        return want
    return None if events is None else events.pcr
