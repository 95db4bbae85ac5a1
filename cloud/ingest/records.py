"""Records beside the samples: declared losses, hourly aggregates, operator flags, signed update reports.

Each is acknowledged by its id once its rows are committed, and taken once however often it comes. A record that
contradicts itself is refused for ever; one of an unknown edge is not answered, so the edge keeps it.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud import audit
from cloud.clock import NowUs, to_us
from cloud.db.session import Begin
from cloud.db.tables import AggregateRow, Edge, FlagRow, LossRow, Task
from cloud.ingest import repository
from cloud.ingest.rules import MAX_INT, VALUE
from models.contracts.control import SignedReport
from models.contracts.telemetry import Aggregate, AggregateCell, Flag
from models.contracts.uplink import Ack, Loss, RecordAck

NO_EPOCH = "0" * 16
OnReport = Callable[[SignedReport], bool]
"""Takes a signed report; True when it is stored or was before, False when its signature or content is refused."""


class UnknownEdge(LookupError):
    """The sender is not enrolled."""


class Records:
    """See the module."""

    def __init__(self, *, begin: Begin, now: NowUs, on_report: OnReport) -> None:
        self._begin, self._now, self._on_report = begin, now, on_report

    def loss(self, loss: Loss) -> Ack:
        """Sequence numbers that will never come."""
        with self._begin() as session:
            self._edge(session, loss.edge)
            code = "bad_range" if any(lost.last < lost.first for lost in loss.ranges) else None
            if code is not None:
                self._refuse(session, loss.edge, loss.id, code)
            elif session.scalars(select(LossRow.id).where(LossRow.manifest == loss.id).limit(1)).first() is None:
                session.add_all(_loss_rows(loss))
        return _answer(loss.edge, loss.epoch, loss.id, code)

    def aggregate(self, aggregate: Aggregate) -> Ack:
        """One hour of everything the edge inspected."""
        with self._begin() as session:
            code = _fault_of(aggregate, line=self._edge(session, aggregate.edge).line)
            seen = select(AggregateRow.id).where(AggregateRow.manifest == aggregate.id).limit(1)
            if code is not None:
                self._refuse(session, aggregate.edge, aggregate.id, code)
            elif session.scalars(seen).first() is None:
                session.add_all(_aggregate_rows(aggregate))
        return _answer(aggregate.edge, aggregate.epoch, aggregate.id, code)

    def flag(self, flag: Flag) -> Ack:
        """An operator's "this one was wrong"; its open task moves to the front of the queue that trains."""
        with self._begin() as session:
            edge = self._edge(session, flag.edge)
            code = None
            if edge.line != flag.line:
                code = "wrong_line"
            elif flag.sid is None and flag.serial is None:
                code = "no_part"
            if code is not None:
                self._refuse(session, flag.edge, flag.id, code)
            elif session.get(FlagRow, flag.id) is None:
                session.add(_flag_row(flag))
                task = session.get(Task, flag.sid) if flag.sid else None
                if task is not None and task.queue == VALUE:
                    task.value = 1.0
            epoch = edge.epoch or NO_EPOCH
        return _answer(flag.edge, epoch, flag.id, code)

    def report(self, report: SignedReport) -> Ack:
        """What the edge says it runs; the rollout service verifies the signature and keeps it."""
        with self._begin() as session:
            epoch = self._edge(session, report.edge).epoch or NO_EPOCH
        taken = self._on_report(report)
        return _answer(report.edge, epoch, report.id, None if taken else "report")

    def _edge(self, session: Session, name: str) -> Edge:
        edge = repository.edge_row(session, name)
        if edge is None:
            raise UnknownEdge(f"no edge {name!r}: enrol it with `edgeloop cloud edge add`")
        return edge

    def _refuse(self, session: Session, edge: str, record: str, code: str) -> None:
        audit.record(
            session, at=self._now(), actor=f"edge:{edge}", action="record_refused", subject=record, reason=code
        )


def _answer(edge: str, epoch: str, record: str, code: str | None) -> Ack:
    answer = RecordAck(id=record, result="stored" if code is None else "no", code=code)
    return Ack(edge=edge, epoch=epoch, records=[answer])


def _fault_of(aggregate: Aggregate, *, line: str) -> str | None:
    if aggregate.line != line:
        return "wrong_line"
    if aggregate.period > MAX_INT or not all(_sound(cell) for cell in aggregate.cells):
        return "bad_cell"
    return None


def _loss_rows(loss: Loss) -> list[LossRow]:
    return [
        LossRow(
            manifest=loss.id,
            edge=loss.edge,
            epoch=loss.epoch,
            first=lost.first,
            last=lost.last,
            reason=lost.reason.value,
            policy=lost.policy,
            declared_at=to_us(loss.declared_at),
        )
        for lost in {lost.first: lost for lost in loss.ranges}.values()
    ]


def _sound(cell: AggregateCell) -> bool:
    counts = (cell.n, cell.n_selected, cell.release, *cell.verdicts.values(), *cell.hist)
    return all(0 <= count <= MAX_INT for count in counts) and cell.n_selected <= cell.n


def _aggregate_rows(aggregate: Aggregate) -> list[AggregateRow]:
    return [
        AggregateRow(
            manifest=aggregate.id,
            cell=index,
            edge=aggregate.edge,
            line=aggregate.line,
            period=aggregate.period,
            period_start=to_us(aggregate.period_start),
            period_end=to_us(aggregate.period_end),
            camera=cell.camera,
            release=cell.release,
            product=cell.product,
            predicted=cell.predicted,
            n=cell.n,
            n_selected=cell.n_selected,
            verdicts={verdict.value: n for verdict, n in cell.verdicts.items()},
            sum_g=cell.sum_g,
            sum_g2=cell.sum_g2,
            sum_defect=cell.sum_defect,
            hist=list(cell.hist),
        )
        for index, cell in enumerate(aggregate.cells)
    ]


def _flag_row(flag: Flag) -> FlagRow:
    return FlagRow(
        id=flag.id, edge=flag.edge, line=flag.line, sid=flag.sid, serial=flag.serial, reason=flag.reason,
        claimed=flag.claimed, flagged_at=to_us(flag.flagged_at),
    )  # fmt: skip
