"""Field accuracy that is true: per period and per release, with intervals, as of label time.

Decides which labels estimate (random queue, careful, known class), which totals may be used (only when every box that
sent samples has reported), and which estimator that leaves. Rules:

1. Only the estimation queue estimates: its inclusion probability is known. The value queue trains.
2. Not all of that queue is labelled yet. It is offered in random order, so the labelled ones are a simple random part
   of it, and pi is multiplied by the share labelled (Sarndal, Swensson & Wretman 1992, chapter 15: a response group).
3. Below 20 labels there is no figure. Without aggregates of every box it is Hajek's, else the difference estimator's.
4. Reviewer mistakes are corrected from gold items; with fewer than 20 of these the row says `corrected = false`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cloud.accuracy import estimators, repository
from cloud.accuracy.estimators import MIN_LABELS, Estimate, Labelled, Reviewer, Totals
from cloud.accuracy.repository import ESTIMATE, By, Drawn, Sums, Window
from cloud.accuracy.schemas import AccuracyRow, Share, Status
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.http import not_found

DEFAULT_PERIODS = 168


@dataclass(frozen=True)
class _Facts:
    """Everything about one period or release before it is estimated."""

    samples: Sequence[Drawn]
    sums: Sums
    uploads: dict[str, int]

    @property
    def unreported(self) -> list[str]:
        return sorted(set(self.uploads) - self.sums.edges)


class AccuracyService:
    """Reads only."""

    def __init__(self, *, begin: Begin, reads: Begin, now: NowUs) -> None:
        self._reads, self._now = reads, now

    def by_period(self, line: str, *, periods: int = DEFAULT_PERIODS, as_of: int | None = None) -> list[AccuracyRow]:
        """The newest `periods` periods, oldest first; as the labels stood at `as_of` microseconds.

        Raises:
            Problem: 404 for an unknown line.
        """
        return self._rows(line, "period", periods=periods, as_of=as_of)

    def by_release(self, line: str, *, as_of: int | None = None) -> list[AccuracyRow]:
        """Every adapter release that judged parts, oldest first.

        Raises:
            Problem: 404 for an unknown line.
        """
        return self._rows(line, "release", periods=None, as_of=as_of)

    def _rows(self, line: str, by: By, *, periods: int | None, as_of: int | None) -> list[AccuracyRow]:
        with self._reads() as session:
            classes = repository.classes(session, line)
            if classes is None:
                raise not_found("line", line)
            newest = repository.newest_period(session, line) if periods else None
            since = newest - periods + 1 if newest is not None and periods else None
            window = Window(line, by, since=since, as_of=as_of)
            sides = {str(spec["name"]): bool(spec["defect"]) for spec in classes}
            defects = frozenset(name for name, defect in sides.items() if defect)
            reviewer = repository.reviewers(session, line, defects=defects, as_of=as_of)
            drawn = repository.drawn(session, window)
            uploads, sums = repository.uploads(session, window), repository.sums(session, window)
            starts = repository.period_starts(session, window) if by == "period" else {}
        grouped: dict[int, list[Drawn]] = defaultdict(list)
        for sample in drawn:
            grouped[sample.key].append(sample)
        now = self._now() if as_of is None else as_of
        rows = []
        for key in sorted(set(uploads) | set(sums)):
            facts = _Facts(grouped.get(key, []), sums.get(key, Sums()), uploads.get(key, {}))
            row = _row(facts, sides, reviewer=reviewer, as_of=now)
            update = {"period": key, "starts_at": starts.get(key)} if by == "period" else {"release": key}
            rows.append(row.model_copy(update=update))
        return rows


def _row(facts: _Facts, sides: dict[str, bool], *, reviewer: Reviewer, as_of: int) -> AccuracyRow:
    queued = [one for one in facts.samples if one.queue == ESTIMATE]
    random = [one for one in queued if one.name in sides]
    sample = labelled(random, sides, response=len(random) / len(queued) if queued else 1.0)
    everything = labelled([one for one in facts.samples if one.name in sides], sides)
    labels = int(sample.judged.sum())
    status: Status = "ok" if reviewer.reliable else "reviewers_unreliable"
    accuracy = escape = overkill = escaped = overkilled = None
    if labels < MIN_LABELS:
        status = "not_enough_labels"
    elif reviewer.reliable:
        accuracy = _accuracy(sample, facts, reviewer)
        escape = estimators.escape(sample, reviewer=reviewer)
        overkill = estimators.overkill(sample, reviewer=reviewer)
        escaped = estimators.escaped(sample, reviewer=reviewer)
        overkilled = estimators.overkilled(sample, reviewer=reviewer)
    return AccuracyRow(
        n_parts=facts.sums.n,
        judged=facts.sums.judged,
        uploaded=sum(facts.uploads.values()),
        labels=labels,
        waiting=len(queued) - len(random),
        needed=MIN_LABELS,
        status=status,
        accuracy=_share(accuracy),
        escape=_share(escape),
        overkill=_share(overkill),
        escaped=_share(escaped),
        overkilled=_share(overkilled),
        naive=estimators.naive(everything),
        method=accuracy.method if accuracy else None,
        corrected=bool(accuracy and accuracy.corrected),
        mistake_rate=reviewer.rate if reviewer.corrects else None,
        gold=reviewer.gold,
        unreported=facts.unreported,
        as_of=as_of,
        last_label_at=max((one.labelled_at for one in random if one.labelled_at is not None), default=None),
    )


def _accuracy(sample: Labelled, facts: _Facts, reviewer: Reviewer) -> Estimate | None:
    if facts.unreported or facts.sums.judged < 1:
        return estimators.hajek(sample, reviewer=reviewer)
    return estimators.difference(sample, Totals(facts.sums.judged, facts.sums.sum_g), reviewer=reviewer)


def labelled(samples: Iterable[Drawn], sides: dict[str, bool], *, response: float = 1.0) -> Labelled:
    """Rows to arrays. `response` is the share of the queue that is labelled; samples' names must be in `sides`.

    The forced call's side is the predicted class's side: `Decision.predicted` is the likeliest class of that side.
    """
    rows = list(samples)
    judged = np.array([one.predicted in sides and one.defect_score is not None for one in rows], dtype=bool)
    called = np.array([sides.get(one.predicted or "", False) for one in rows], dtype=bool)
    score = np.array([one.defect_score if one.defect_score is not None else 0.5 for one in rows], dtype=np.float64)
    return Labelled(
        called_defect=called,
        says_defect=np.array([sides[one.name or ""] for one in rows], dtype=bool),
        g=np.where(called, score, 1 - score),
        pi=np.clip(np.array([one.pi for one in rows], dtype=np.float64) * response, 1e-9, 1.0),
        passed=np.array([one.verdict == "pass" for one in rows], dtype=bool),
        rejected=np.array([one.verdict == "reject" for one in rows], dtype=bool),
        judged=judged,
    )


def _share(estimate: Estimate | None) -> Share | None:
    if estimate is None:
        return None
    return Share(
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        labels=estimate.labels,
        effective=estimate.effective if np.isfinite(estimate.effective) else None,
        method=estimate.method,
    )
