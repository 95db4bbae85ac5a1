"""How fast to talk: a byte budget while all is well, growing pauses while nobody answers. No I/O, no clock."""

from __future__ import annotations

import random


class TokenBucket:
    """At most `rate` bytes a second in the long run and `burst` at once; None for `rate` means no limit."""

    def __init__(self, rate: float | None, burst: int) -> None:
        self._rate, self._burst = rate, float(burst)
        self._level, self._at = float(burst), 0.0

    def ready(self, t: float, size: int) -> bool:
        """Whether `size` bytes may go at time `t`. More than a burst may go when the bucket is full, and is owed."""
        if self._rate is None:
            return True
        self._level = min(self._burst, self._level + max(0.0, t - self._at) * self._rate)
        self._at = t
        return self._level >= min(size, self._burst)

    def spend(self, size: int) -> None:
        """`size` bytes went."""
        if self._rate is not None:
            self._level -= size


class Backoff:
    """Full jitter: after n failures a pause uniform in 0 .. ``min(cap, base * 2 ** n)`` seconds."""

    def __init__(self, *, base: float, cap: float, rng: random.Random) -> None:
        self._base, self._cap, self._rng = base, cap, rng
        self.failures = 0

    def fail(self) -> float:
        """One more failure; seconds to wait."""
        self.failures += 1
        return self._rng.uniform(0.0, min(self._cap, self._base * 2.0 ** min(self.failures, 32)))

    def reset(self) -> None:
        self.failures = 0


class Silence:
    """Whether the other side answers at all.

    A retained "online" can be stale, so only answers count. After a failure one probe is out at a time, and the next
    goes no earlier than `gate`.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._heard = self._failed = float("-inf")
        self.gate = float("-inf")

    @property
    def broken(self) -> bool:
        """Nothing came back the last time."""
        return self._backoff.failures > 0

    def heard(self, t: float) -> None:
        self._heard = t
        self.reset()

    def reset(self) -> None:
        """A fresh connection or a fresh ingest: what was unanswered before says nothing now."""
        self._backoff.reset()
        self.gate = self._failed = float("-inf")

    def unanswered(self, since: float, t: float) -> None:
        """What was said at `since` got no answer until `t`. Things said together count as one failure."""
        if since > self._heard and since >= self._failed:
            self._failed = t
            self.gate = t + self._backoff.fail()
