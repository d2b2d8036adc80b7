"""One check of an appraisal: what was found, what the policy wants."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Aspect(StrEnum):
    """What a check speaks about: the categories of draft-ietf-rats-ar4si that are used here."""

    HARDWARE = "hardware"  # the silicon, its keys and its firmware
    CONFIGURATION = "configuration"  # how the machine was launched, and in which mode
    EXECUTABLES = "executables"  # what was loaded and runs
    FILE_SYSTEM = "file-system"  # what is mounted: the sealed model


@dataclass(frozen=True, slots=True)
class Result:
    """`found` and `wanted` are words for a person."""

    check: str
    passed: bool
    found: str
    wanted: str
    aspect: Aspect = Aspect.CONFIGURATION

    def __str__(self) -> str:
        return f"{self.check} is {self.found}, want {self.wanted}"


def any_of(names: Iterable[str]) -> str:
    """The alternatives in words; "nothing" when there is none."""
    return " or ".join(names) or "nothing"


def refused(check: str, found: str, section: str) -> Result:
    """A kind of evidence that a policy says nothing about: never a pass."""
    return Result(check, False, found, f"none, or a section {section} in the policy")
