"""Queries of the fleet."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud.db.tables import Edge, LossRow, Sample
from cloud.fleet.conservation import Range

Key = tuple[str, str]
"""(edge, epoch)"""


def edges(session: Session, line: str | None = None) -> list[Edge]:
    """Boxes by name."""
    query = select(Edge).order_by(Edge.name)
    return list(session.scalars(query if line is None else query.where(Edge.line == line)))


def stored_ranges(session: Session, names: list[str]) -> dict[Key, list[Range]]:
    """Runs of stored sequence numbers: seq minus its rank is constant within a run (gaps and islands)."""
    rank = func.row_number().over(partition_by=(Sample.edge, Sample.epoch), order_by=Sample.seq)
    numbered = select(Sample.edge, Sample.epoch, Sample.seq, (Sample.seq - rank).label("island"))
    inner = numbered.where(Sample.edge.in_(names)).subquery()
    query = select(inner.c.edge, inner.c.epoch, func.min(inner.c.seq), func.max(inner.c.seq)).group_by(
        inner.c.edge, inner.c.epoch, inner.c.island
    )
    found: dict[Key, list[Range]] = defaultdict(list)
    for edge, epoch, first, last in session.execute(query):
        found[edge, epoch].append((first, last))
    return found


def lost_ranges(session: Session, names: list[str]) -> dict[Key, dict[str, list[Range]]]:
    """Declared losses per (edge, epoch) and reason."""
    found: dict[Key, dict[str, list[Range]]] = defaultdict(lambda: defaultdict(list))
    for row in session.scalars(select(LossRow).where(LossRow.edge.in_(names))):
        found[row.edge, row.epoch][row.reason].append((row.first, row.last))
    return found
