"""Whose turn it is: strict between urgent and the rest, by weight between hard and audit samples.

Strict priority alone would starve the random audit stream exactly when the line is in trouble, and without it field
accuracy cannot be estimated. Smooth weighted round robin (nginx's algorithm): each stream earns its weight a turn, the
richest is served and pays the total. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.contracts.uplink import Priority

SHARED = (Priority.HARD, Priority.AUDIT)


class FairQueue:
    """Keeps the credits between calls, so shares hold over batches of any size."""

    def __init__(self) -> None:
        self._credit = dict.fromkeys(SHARED, 0)

    def choose(
        self, heads: Mapping[Priority, Sequence[str]], *, limit: int, weights: Mapping[Priority, int]
    ) -> list[str]:
        """Up to `limit` sids from the heads of the streams."""
        chosen = [sid for prio in (Priority.ALERT, Priority.FLAGGED) for sid in heads.get(prio, ())][:limit]
        waiting = {prio: list(heads.get(prio, ())) for prio in SHARED}
        while len(chosen) < limit and any(waiting.values()):
            live = [prio for prio in SHARED if waiting[prio]]
            for prio in live:
                self._credit[prio] += weights.get(prio, 1)
            richest = max(live, key=lambda prio: self._credit[prio])
            self._credit[richest] -= sum(weights.get(prio, 1) for prio in live)
            chosen.append(waiting[richest].pop(0))
        return chosen + list(heads.get(Priority.DEBUG, ()))[: limit - len(chosen)]
