"""Which sealed requests were taken: each once, within WINDOW seconds of its time. Times are arguments, unix seconds.

A request is known by its secret, which is inside: whoever carries it can change nothing about that. What is forgotten
is too old to be taken again, also should the clock be set back. The memory is bounded; full, it takes no more.
"""

from hashlib import sha256
from typing import Final

WINDOW: Final = 300  # seconds a client's clock may differ from the machine's
MOST: Final = 1 << 17  # requests


class Replays:
    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._taken = dict[bytes, int]()  # SHA-256 of a secret -> its request's time
        self._forgotten = 0  # every request of before this time

    def __len__(self) -> int:
        return len(self._taken)

    def is_timely(self, time: int, *, now: int) -> bool:
        return abs(now - time) <= WINDOW and time >= self._forgotten

    def is_full(self, *, now: int) -> bool:
        """Whether one more could not be remembered, after forgetting what has become too old."""
        oldest = now - WINDOW
        if (
            len(self._taken) >= self._most and oldest > self._forgotten
        ):  # once a second: it looks at everything
            self._forgotten = oldest
            self._taken = {known: time for known, time in self._taken.items() if time >= oldest}
        return len(self._taken) >= self._most

    def take(self, secret: bytes, time: int) -> bool:
        """Whether this is the first time. Remembered from now on; the caller has found it timely, and room for it."""
        known = sha256(secret).digest()
        if known in self._taken:
            return False
        self._taken[known] = time
        return True
