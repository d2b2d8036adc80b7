"""A token bucket: so many a minute on average, and as many at once after a minute of rest.

`now` is any clock that only goes forward, in seconds.
"""


class Bucket:
    __slots__ = ("_at", "_full", "_level", "_rate")

    def __init__(self, per_minute: int, *, now: float) -> None:
        self._rate = per_minute / 60  # a second
        self._full = self._level = float(per_minute)
        self._at = now

    def level(self, now: float) -> float:
        """What is in it; below zero when more was spent than was there."""
        if now > self._at:
            self._level = min(self._full, self._level + (now - self._at) * self._rate)
            self._at = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much is in it; 0.0 when it is. `amount` is at most what it holds when full."""
        return max(0.0, (amount - self.level(now)) / self._rate)

    def spend(self, amount: float, now: float) -> None:
        """Take it out, whether it is there or not: what is missing fills up first."""
        self._level = self.level(now) - amount
