"""Queries of labels and tasks. Every function works in the caller's transaction.

The label that counts is the newest row of the sample that names a class and that no later row undoes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from cloud.db.tables import Description, Label, Sample, Task


class Cursor(NamedTuple):
    """The last task of a page."""

    queue: str
    value: float
    sid: str


def counting(as_of: int | None = None) -> Select[tuple[int]]:
    """Ids of the labels that count, at `as_of` (microseconds) or now."""
    undo = aliased(Label)
    until: list[ColumnElement[bool]] = [] if as_of is None else [Label.labelled_at <= as_of]
    undone_until: list[ColumnElement[bool]] = [] if as_of is None else [undo.labelled_at <= as_of]
    undone = select(undo.id).where(undo.undoes == Label.id, undo.sid == Label.sid, *undone_until).exists()
    return select(func.max(Label.id)).where(Label.undoes.is_(None), ~undone, *until).group_by(Label.sid)


def open_tasks(session: Session, line: str, limit: int, after: Cursor | None) -> Sequence[tuple[Task, Sample]]:
    """The next tasks: ``estimate`` before ``value``, then by value, highest first. Keyset, so deep pages are cheap."""
    query = select(Task, Sample).join(Sample, Sample.sid == Task.sid).where(Task.line == line, Task.state == "open")
    if after is not None:
        behind = or_(
            Task.queue > after.queue,
            and_(Task.queue == after.queue, Task.value < after.value),
            and_(Task.queue == after.queue, Task.value == after.value, Task.sid > after.sid),
        )
        query = query.where(behind)
    rows = session.execute(query.order_by(Task.queue, Task.value.desc(), Task.sid).limit(limit))
    return [(task, sample) for task, sample in rows]


def open_counts(session: Session, line: str) -> dict[str, int]:
    """Open tasks per queue."""
    query = select(Task.queue, func.count()).where(Task.line == line, Task.state == "open").group_by(Task.queue)
    return dict(session.execute(query).all())


def descriptions(session: Session, sids: Sequence[str]) -> dict[str, list[Description]]:
    """What may be shown of the language model's words, by sample."""
    query = select(Description).where(Description.sid.in_(sids), Description.text.is_not(None))
    found: dict[str, list[Description]] = {sid: [] for sid in sids}
    for row in session.scalars(query.order_by(Description.sid, Description.language)):
        found[row.sid].append(row)
    return found


def history(session: Session, sid: str) -> list[Label]:
    """Every judgement of a sample in order."""
    return list(session.scalars(select(Label).where(Label.sid == sid).order_by(Label.id)))


def counts_now(rows: Sequence[Label]) -> Label | None:
    """Of a sample's history, the row that counts."""
    undone = {row.undoes for row in rows if row.undoes is not None}
    return next((row for row in reversed(rows) if row.undoes is None and row.id not in undone), None)


def current(session: Session, line: str, as_of: int | None) -> list[tuple[Label, Sample, Task | None]]:
    """Labels that count with their samples, oldest first."""
    query = (
        select(Label, Sample, Task)
        .join(Sample, Sample.sid == Label.sid)
        .outerjoin(Task, Task.sid == Label.sid)
        .where(Label.line == line, Label.id.in_(counting(as_of)))
        .order_by(Label.id)
    )
    return [(label, sample, task) for label, sample, task in session.execute(query)]
