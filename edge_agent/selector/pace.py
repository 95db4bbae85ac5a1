"""The hour's byte budget as probabilities. Knows bytes, time and arrivals; knows nothing of hardness.

Rules:
1. B bytes an hour; 90 % of them are planned, 10 % are the reserve that the smallest probability lives on, so that it
   need not end when luck or a faster line has spent the plan early.
2. What is left is spread over the parts still expected: time left in the hour divided by the mean gap between parts.
3. The hard cap is B: a sample that does not fit into what is left of B is not kept, whatever the coin says. It is
   counted (`Skipped.BUDGET`): from there to the end of the hour the estimate has no support, and the count says so.
   The smallest probability shrinks with what is left, so the cap is reached only when frames grow suddenly.
4. Everything used for a part's probability was known before the part: the Horvitz-Thompson estimator stays unbiased.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

RESERVE = 0.1
PRIOR_PARTS_PER_HOUR = 1000.0
PRIOR_WEIGHT = 4.0
GAP_MEMORY = 50.0
SIZE_MEMORY = 50.0
MAX_GAP_RATIO = 10.0
MAX_PACE = 4.0
ENVELOPE_BYTES = 2048
"""What an envelope and its offer add to a sample, counted against the budget beside the image."""


class Rates(NamedTuple):
    """`base` items per part if B were spread over the whole hour, `even` what is left over the parts left.

    `pace` is c = even / base within 0..4, `least` the smallest probability the bytes left can bear.
    """

    base: float
    even: float
    pace: float
    least: float


@dataclass(slots=True)
class PaceState:
    """What survives a restart. `gap_s` mean seconds between parts, `size` mean bytes of a sample."""

    period: int = -1
    spent: int = 0
    spent_unjudged: int = 0
    seen: int = 0
    arrivals: float = 0.0
    gap_s: float = 0.0
    sizes: float = 0.0
    size: float = 0.0


class Pace:
    """See the module. Times are unix seconds."""

    def __init__(self, *, bytes_per_hour: int, hour_s: int, state: PaceState | None = None) -> None:
        self.bytes_per_hour, self._hour_s = bytes_per_hour, hour_s
        self._state = state or PaceState()
        if self._state.gap_s <= 0:
            self._state.gap_s = hour_s / PRIOR_PARTS_PER_HOUR
        self._last: float | None = None

    @property
    def left(self) -> int:
        """Bytes that may still be kept this hour."""
        return max(self.bytes_per_hour - self._state.spent, 0)

    @property
    def spent(self) -> int:
        return self._state.spent

    @property
    def spent_unjudged(self) -> int:
        """Bytes of the hour that went to frames nobody could judge."""
        return self._state.spent_unjudged

    def arrive(self, at: float, *, size: int) -> Rates:
        """A part of `size` bytes has come at `at`; the rates that hold for it."""
        state = self._state
        self._roll(int(at // self._hour_s))
        self._learn_gap(at)
        mean_size = state.size if state.sizes else float(size)
        left_s = max((state.period + 1) * self._hour_s - at, 0.0)
        parts_left = 1.0 + left_s / state.gap_s
        parts = state.seen + parts_left
        state.seen += 1
        state.sizes = min(state.sizes + 1, SIZE_MEMORY)
        state.size += (size - state.size) / state.sizes
        planned = self.bytes_per_hour * (1 - RESERVE)
        base = planned / (mean_size * parts)
        even = max(planned - state.spent, 0.0) / (mean_size * parts_left)
        pace = min(even / base, MAX_PACE)
        least = 0.5 * self.left / (mean_size * parts_left)
        return Rates(base=base, even=even, pace=pace, least=least)

    def _roll(self, period: int) -> None:
        """A new hour has a new budget. A clock set back by less than an hour does not; by more, it was wrong before."""
        state = self._state
        if period > state.period or period < state.period - 1:
            state.period, state.spent, state.spent_unjudged, state.seen = period, 0, 0, 0

    def _learn_gap(self, at: float) -> None:
        state = self._state
        if self._last is not None and at > self._last:
            gap = min(at - self._last, state.gap_s * MAX_GAP_RATIO)
            state.arrivals = min(state.arrivals + 1, GAP_MEMORY)
            state.gap_s += (gap - state.gap_s) / (PRIOR_WEIGHT + state.arrivals)
        self._last = at

    def spend(self, size: int, *, unjudged: bool) -> None:
        """A sample of `size` bytes was kept."""
        self._state.spent += size
        if unjudged:
            self._state.spent_unjudged += size

    def snapshot(self) -> dict[str, float]:
        """For a restart within the hour: see `restore`."""
        return asdict(self._state)

    @staticmethod
    def restore(values: dict[str, float]) -> PaceState:
        """The inverse of `snapshot`.

        Raises:
            TypeError, ValueError: not a snapshot.
        """
        whole = ("period", "spent", "spent_unjudged", "seen")
        return PaceState(**{k: int(v) if k in whole else float(v) for k, v in values.items()})  # type: ignore[arg-type]
