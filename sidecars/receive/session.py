"""Whose turn it is at the door, sans-IO: one provider at a time, one manifest at a time, one model in the end.

    WAITING    nothing is known                 claim -> RECEIVING
    RECEIVING  bytes of one manifest come in    claim of the same: goes on, the older connection is cut
                                                claim of another by the same provider: replaces it
                                                claim by another provider: refused until the first was silent for HOLD
                                                refuse -> WAITING;  seal -> SEALING
    SEALING    the tree is being committed      refuse -> WAITING;  accept -> ACCEPTED
    ACCEPTED   the end: the same claim hears it again, every other is refused

A sender is a connection. It is asked for again before every step, so one that lost its turn cannot go on.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Generic, TypeVar

from strongroom.errors import ProtocolError
from strongroom.host.door.refusal import Refusal
from strongroom.push.answers import Accepted

HOLD: Final = 60.0  # seconds for which a provider that went away keeps its turn
_RETRY: Final = {"retry-after": "5"}

S = TypeVar("S")


class State(Enum):
    WAITING = auto()
    RECEIVING = auto()
    SEALING = auto()
    ACCEPTED = auto()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a verified offer stands for."""

    provider: bytes  # DER SPKI
    manifest_sha256: bytes


class Session(Generic[S]):
    def __init__(self) -> None:
        self.state = State.WAITING
        self.claimed: Claim | None = None
        self.accepted: Accepted | None = None
        self._sender: S | None = None
        self._seen = 0.0

    def claim(self, sender: S, claim: Claim, *, now: float) -> S | None:
        """Give `sender` the turn; the result is the connection it takes it from, to be cut. Refusal when it may not.

        `now` is of any clock that only goes forward, in seconds.
        """
        if claim != self.claimed:
            self._check_free(claim, now)
            self.state, self.claimed = State.RECEIVING, claim
        elif self.state is State.SEALING:
            raise Refusal(503, "sealing", "the model is being sealed", headers=_RETRY)
        displaced, self._sender, self._seen = self._sender, sender, now
        return None if displaced is sender else displaced

    def _check_free(self, claim: Claim, now: float) -> None:
        if self.state in (State.SEALING, State.ACCEPTED):
            raise Refusal(409, "accepted", "another model has been accepted")
        if self.claimed is None or self.claimed.provider == claim.provider:
            return
        if self._sender is not None or now < self._seen + HOLD:
            raise Refusal(409, "taken", "another provider is pushing a model")

    def require(self, sender: S, *, now: float) -> Claim:
        """The claim that `sender` goes on with; Refusal when it has no turn, or not any more."""
        if self._sender is not sender or self.claimed is None:
            raise Refusal(409, "no_turn", "this connection has no turn: want an accepted offer first")
        self._seen = now
        return self.claimed

    def seal(self, sender: S, *, now: float) -> Claim:
        """All bytes are there: from now on nobody is let in between. Refusal when `sender` has no turn."""
        claim = self.require(sender, now=now)
        if self.state is not State.RECEIVING:
            raise Refusal(409, "out_of_order", "nothing is being received, want a manifest first")
        self.state = State.SEALING
        return claim

    def accept(self, accepted: Accepted) -> None:
        if self.state is not State.SEALING:
            raise ProtocolError(f"push: accepting while {self.state.name.lower()}")
        self.state, self.accepted = State.ACCEPTED, accepted

    def refuse(self, claim: Claim) -> None:
        """Forget a claim that came to nothing; one that was replaced meanwhile is left alone."""
        if self.claimed == claim and self.state is not State.ACCEPTED:
            self.state, self.claimed, self._sender = State.WAITING, None, None

    def left(self, sender: S, *, now: float) -> None:
        """The connection is gone. What it brought is kept, for it to come back to."""
        if self._sender is sender:
            self._sender, self._seen = None, now
