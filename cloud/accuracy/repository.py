"""What the estimate reads: labelled and waiting samples, counts of uploads, sums over all parts, gold items.

Columns only, no envelopes. "The label that counts" is `cloud.labels`'s definition; bulk labels are left out, because
a wall of thumbnails is no careful look: a sample labelled in bulk counts as not labelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from cloud.accuracy.estimators import Reviewer
from cloud.db.tables import AggregateRow, Label, Line, Sample, Task
from cloud.labels.repository import counting

By = Literal["period", "release"]
ESTIMATE = "estimate"
BULK = "bulk"


class Drawn(NamedTuple):
    """One sample that is in the estimation queue, or labelled, or both. `name` is None while it waits."""

    key: int
    edge: str
    verdict: str
    predicted: str | None
    defect_score: float | None
    pi: float
    queue: str | None
    name: str | None
    labelled_at: int | None


@dataclass
class Sums:
    """Over all parts of one period or release; `edges` sent them."""

    n: int = 0
    judged: int = 0
    sum_g: float = 0.0
    edges: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Window:
    """Which part of the line's history: periods from `since` on, labels and samples until `as_of` (microseconds)."""

    line: str
    by: By
    since: int | None = None
    as_of: int | None = None

    def samples(self) -> list[ColumnElement[bool]]:
        conditions = [Sample.line == self.line]
        if self.since is not None:
            conditions.append(Sample.period >= self.since)
        if self.as_of is not None:
            conditions.append(Sample.stored_at <= self.as_of)
        return conditions

    def aggregates(self) -> list[ColumnElement[bool]]:
        conditions = [AggregateRow.line == self.line]
        if self.since is not None:
            conditions.append(AggregateRow.period >= self.since)
        return conditions


def newest_period(session: Session, line: str) -> int | None:
    """Of the aggregates, or of the samples while no aggregate has come."""
    found = session.scalar(select(func.max(AggregateRow.period)).where(AggregateRow.line == line))
    if found is not None:
        return found
    return session.scalar(select(func.max(Sample.period)).where(Sample.line == line))


def drawn(session: Session, window: Window) -> list[Drawn]:
    """Samples of the estimation queue, labelled or waiting, and every other labelled sample."""
    key = Sample.period if window.by == "period" else Sample.release
    counts = (
        select(Label.sid, Label.name, Label.labelled_at)
        .where(Label.id.in_(counting(window.as_of).where(Label.line == window.line)), Label.method != BULK)
        .subquery()
    )
    pi = Sample.pi_select * Sample.pi_survive * func.coalesce(Task.pi_label, 1.0)
    query = (
        select(
            key, Sample.edge, Sample.verdict, Sample.predicted, Sample.defect_score, pi, Task.queue,
            counts.c.name, counts.c.labelled_at,
        )
        .outerjoin(Task, Task.sid == Sample.sid)
        .outerjoin(counts, counts.c.sid == Sample.sid)
        .where(*window.samples(), or_(Task.queue == ESTIMATE, counts.c.name.is_not(None)))
    )  # fmt: skip
    return [Drawn(*row) for row in session.execute(query)]


def uploads(session: Session, window: Window) -> dict[int, dict[str, int]]:
    """Stored samples per key and edge."""
    key = Sample.period if window.by == "period" else Sample.release
    query = select(key, Sample.edge, func.count()).where(*window.samples()).group_by(key, Sample.edge)
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for at, edge, count in session.execute(query):
        found[at][edge] = count
    return found


def sums(session: Session, window: Window) -> dict[int, Sums]:
    """The aggregates added up. A cell without a predicted class holds parts that could not be judged."""
    key = AggregateRow.period if window.by == "period" else AggregateRow.release
    judged = AggregateRow.predicted.is_not(None)
    query = (
        select(key, AggregateRow.edge, judged, func.sum(AggregateRow.n), func.sum(AggregateRow.sum_g))
        .where(*window.aggregates())
        .group_by(key, AggregateRow.edge, judged)
    )
    found: dict[int, Sums] = defaultdict(Sums)
    for at, edge, has_scores, n, sum_g in session.execute(query):
        one = found[at]
        one.n += int(n)
        one.edges.add(edge)
        if has_scores:
            one.judged += int(n)
            one.sum_g += float(sum_g)
    return found


def period_starts(session: Session, window: Window) -> dict[int, int]:
    """When each period began, from the aggregates."""
    query = (
        select(AggregateRow.period, func.min(AggregateRow.period_start))
        .where(*window.aggregates())
        .group_by(AggregateRow.period)
    )
    return {period: int(start) for period, start in session.execute(query)}


def reviewers(session: Session, line: str, *, defects: frozenset[str], as_of: int | None) -> Reviewer:
    """Mistakes about the side (defect or good) on gold items, over the line's whole history."""
    query = (
        select(Task.gold, Label.name)
        .join(Label, Label.sid == Task.sid)
        .where(
            Task.line == line,
            Task.gold.is_not(None),
            Label.name.is_not(None),
            Label.method != BULK,
            Label.id.in_(counting(as_of).where(Label.line == line)),
        )
    )
    pairs = list(session.execute(query))
    return Reviewer(mistakes=sum((gold in defects) != (name in defects) for gold, name in pairs), gold=len(pairs))


def classes(session: Session, line: str) -> Sequence[dict[str, object]] | None:
    """The line's classes, or None for an unknown line."""
    row = session.get(Line, line)
    return None if row is None else row.classes
