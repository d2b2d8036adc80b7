"""Why a program gets no answer: the first word of what it is told, so that a refusal is not taken for a gap."""

from enum import StrEnum
from typing import Final

TIMEOUT: Final = 28.0  # seconds for the agent to answer: programs wait for 30


class Trouble(StrEnum):
    REFUSED = "refused"  # by the broker's policy
    MISSING = "missing"  # the broker has no such thing
    NOT_ALLOWED = "not allowed"  # by this machine's userdata
    NOT_GENUINE = "not genuine"  # the broker, or our evidence in its eyes
    UNREACHABLE = "unreachable"
    FAILED = "failed"
