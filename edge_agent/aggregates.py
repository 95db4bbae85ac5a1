"""Hourly sums over ALL parts, kept or not: what turns a biased sample of uploads into an unbiased estimate.

The ledger counts in memory and is checkpointed every few seconds (`edge_agent.checkpoint`), so a crash loses at most
those seconds of counts; a regular stop loses none. A finished hour becomes `Aggregate` records with ids derived from
epoch, period and number: closing the same hour twice after a crash gives the same ids, and the cloud keeps one. A
part that arrives after its hour was closed counts in the next. On a box with a gate, the cascade's sums of the hour
ride in its first record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from edge_agent.clock import period_of
from edge_agent.decision import Judgement
from models.contracts.ids import uuid7
from models.contracts.telemetry import HISTOGRAM_BINS, Aggregate, AggregateCell, CascadeSums
from models.runtime.cascade import CascadeTally

CELLS_PER_RECORD = 100
"""Keeps a record below the topic's 64 kB; a longer hour is several records, which add up."""

Key = tuple[str, int, str | None, str | None]


@dataclass(slots=True)
class Cell:
    """Sums of one (camera, release, product, predicted class)."""

    n: int = 0
    n_selected: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    sum_g: float = 0.0
    sum_g2: float = 0.0
    sum_defect: float = 0.0
    hist: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BINS)

    def add(self, judgement: Judgement, *, selected: bool) -> None:
        decision, call = judgement.decision, judgement.call
        self.n += 1
        self.n_selected += selected
        self.verdicts[decision.verdict.value] = self.verdicts.get(decision.verdict.value, 0) + 1
        if call is None or decision.defect_score is None:
            return
        self.sum_g += call.g
        self.sum_g2 += call.g**2
        self.sum_defect += decision.defect_score
        self.hist[min(int(decision.defect_score * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)] += 1


class PeriodLedger:
    """Counts per period. Not thread-safe: the pipeline holds its lock around every call."""

    def __init__(self, *, edge: str, line: str, hour_s: int, grace_s: float | None = None) -> None:
        self._edge, self._line, self._hour_s = edge, line, hour_s
        self._grace_s = min(10.0, hour_s / 20) if grace_s is None else grace_s
        self._open: dict[int, dict[Key, Cell]] = {}
        self._cascade: dict[int, CascadeTally] = {}
        self._closed = -1
        self._epoch = ""
        self._number = 0

    def add(
        self, judgement: Judgement, *, at: datetime, camera: str, release: int, product: str | None, selected: bool
    ) -> None:
        """Count one part."""
        period = self._period(at)
        predicted = judgement.call.predicted if judgement.call else None
        cells = self._open.setdefault(period, {})
        cells.setdefault((camera, release, product, predicted), Cell()).add(judgement, selected=selected)

    def cascade(self, at: datetime) -> CascadeTally:
        """The cascade's sums of the hour that a part of that moment counts in; to be added to."""
        period = self._period(at)
        self._open.setdefault(period, {})
        return self._cascade.setdefault(period, CascadeTally())

    def _period(self, at: datetime) -> int:
        return max(period_of(at, hour_s=self._hour_s), self._closed + 1)

    def due(self, now: datetime, *, epoch: str) -> list[tuple[int, list[Aggregate]]]:
        """Finished periods with their records, oldest first. Call `closed` for each once its records are durable."""
        if epoch != self._epoch:
            self._epoch, self._number = epoch, 0
        current = period_of(now, hour_s=self._hour_s)
        if self._closed > current:  # the clock had been ahead; without this every part would count in the future
            self._closed = current - 1
        ended = now.timestamp() - self._grace_s
        finished = [period for period in sorted(self._open) if (period + 1) * self._hour_s <= ended]
        return [(period, self._records(period, epoch, first)) for period, first in self._numbered(finished)]

    def _numbered(self, periods: Iterable[int]) -> Iterable[tuple[int, int]]:
        number = self._number + 1
        for period in periods:
            yield period, number
            number += self._pages(period)

    def closed(self, period: int) -> None:
        """The period's records are durable elsewhere: forget it."""
        self._number += self._pages(period)
        del self._open[period]
        self._cascade.pop(period, None)
        self._closed = max(self._closed, period)

    def _pages(self, period: int) -> int:
        """Records of a period: at least one, since an audit's result may come after the last part's hour."""
        return max(-(-len(self._open[period]) // CELLS_PER_RECORD), 1)

    def _records(self, period: int, epoch: str, first: int) -> list[Aggregate]:
        cells = [
            AggregateCell(camera=key[0], release=key[1], product=key[2], predicted=key[3], **asdict(cell))
            for key, cell in self._open[period].items()
        ]
        start, end = period * self._hour_s, (period + 1) * self._hour_s
        pages = [cells[i : i + CELLS_PER_RECORD] for i in range(0, max(len(cells), 1), CELLS_PER_RECORD)]
        tally = self._cascade.get(period)
        sums = None if tally is None else CascadeSums(**asdict(tally))
        return [
            Aggregate(
                id=self._id(end, epoch, first + page),
                edge=self._edge,
                epoch=epoch,
                number=first + page,
                line=self._line,
                period_start=datetime.fromtimestamp(start, UTC),
                period_end=datetime.fromtimestamp(end, UTC),
                period=period,
                cells=part,
                cascade=sums if page == 0 else None,
            )
            for page, part in enumerate(pages)
        ]

    def _id(self, end: int, epoch: str, number: int) -> str:
        digest = hashlib.sha256(f"{self._edge}|{epoch}|{end}|{number}".encode()).digest()
        return str(uuid7(end * 1000, digest[:10]))

    def snapshot(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        periods = {
            str(period): [{"key": list(key), "sums": asdict(cell)} for key, cell in cells.items()]
            for period, cells in self._open.items()
        }
        cascade = {str(period): asdict(tally) for period, tally in self._cascade.items()}
        return {
            "epoch": self._epoch, "number": self._number, "closed": self._closed, "open": periods, "cascade": cascade,
        }  # fmt: skip

    def restore(self, values: dict[str, Any]) -> None:
        """The inverse of `snapshot`.

        Raises:
            KeyError, TypeError, ValueError: not a snapshot; nothing was changed.
        """
        opened = {
            int(period): {_key(row["key"]): Cell(**row["sums"]) for row in rows}
            for period, rows in values["open"].items()
        }
        cascade = {int(period): CascadeTally(**sums) for period, sums in values.get("cascade", {}).items()}
        epoch, number, closed = str(values["epoch"]), int(values["number"]), int(values["closed"])
        self._cascade = cascade
        self._open, self._epoch, self._number, self._closed = opened, epoch, number, closed


def _key(values: list[Any]) -> Key:
    camera, release, product, predicted = values
    return str(camera), int(release), product, predicted
