from __future__ import annotations

import json
from datetime import timedelta

import pytest

from edge_agent.aggregates import CELLS_PER_RECORD, PeriodLedger
from edge_agent.clock import period_of
from edge_agent.decision import Judgement, cannot_judge, decide
from models.contracts.base import Malformed, decode
from models.contracts.model_manifest import ClassSpec, Thresholds
from models.contracts.sample import CannotJudge
from models.contracts.telemetry import Aggregate
from models.contracts.topics import UP_LIMIT
from tests.edge_agent.making import START

EPOCH = "0123456789abcdef"
LIMITS = Thresholds(pass_below=0.4, call_at=0.5, reject_above=0.6)


def judgement(defect: float, *, name: str = "crack") -> Judgement:
    import numpy as np

    classes = [ClassSpec(name="good", defect=False), ClassSpec(name=name, defect=True)]
    return decide(np.array([1 - defect, defect]), classes=classes, thresholds=LIMITS, reason=None, latency_ms=1)


def ledger() -> PeriodLedger:
    return PeriodLedger(edge="edge-1", line="cells", hour_s=3600, grace_s=10)


def add(book: PeriodLedger, what: Judgement, *, after: float = 0, selected: bool = False, **fields: object) -> None:
    place = {"camera": "cam-1", "release": 3, "product": None} | fields
    book.add(what, at=START + timedelta(seconds=after), selected=selected, **place)


def test_sums_cover_every_part() -> None:
    book = ledger()
    for score, selected in ((0.1, False), (0.9, True), (0.95, False)):
        add(book, judgement(score), selected=selected)
    add(book, cannot_judge(CannotJudge.TOO_DARK, latency_ms=1), selected=True)
    ((period, (record,)),) = book.due(START + timedelta(seconds=3611), epoch=EPOCH)
    cells = {cell.predicted: cell for cell in record.cells}
    assert {name: cell.n for name, cell in cells.items()} == {"good": 1, "crack": 2, None: 1}
    crack = cells["crack"]
    assert (crack.n_selected, crack.verdicts) == (1, {"reject": 2})
    assert crack.sum_g == pytest.approx(1.85)
    assert crack.sum_g2 == pytest.approx(0.81 + 0.9025)
    assert crack.sum_defect == pytest.approx(1.85)
    assert (crack.hist[18], crack.hist[19], sum(crack.hist)) == (1, 1, 2)
    assert cells["good"].sum_g == pytest.approx(0.9)
    assert cells[None].n_selected == 1
    assert (record.number, record.period) == (1, period)
    assert record.period_end - record.period_start == timedelta(hours=1)


def test_an_hour_is_due_after_its_grace_and_stays_until_closed() -> None:
    book = ledger()
    add(book, judgement(0.2))
    assert book.due(START + timedelta(seconds=3609), epoch=EPOCH) == []
    first = book.due(START + timedelta(seconds=3611), epoch=EPOCH)
    again = book.due(START + timedelta(seconds=3700), epoch=EPOCH)
    assert first == again  # same ids: a crash between record and close repeats nothing
    book.closed(first[0][0])
    assert book.due(START + timedelta(seconds=3700), epoch=EPOCH) == []


def test_numbers_go_on_and_restart_with_the_epoch() -> None:
    book = ledger()
    numbers = []
    for hour, epoch in ((0, EPOCH), (1, EPOCH), (2, "f" * 16)):
        add(book, judgement(0.2), after=hour * 3600)
        ((period, (record,)),) = book.due(START + timedelta(hours=hour + 1, seconds=20), epoch=epoch)
        numbers.append(record.number)
        book.closed(period)
    assert numbers == [1, 2, 1]


def test_a_late_part_counts_in_the_next_hour() -> None:
    book = ledger()
    add(book, judgement(0.2))
    ((period, _),) = book.due(START + timedelta(seconds=3700), epoch=EPOCH)
    book.closed(period)
    add(book, judgement(0.2), after=1)
    ((later, (record,)),) = book.due(START + timedelta(seconds=7300), epoch=EPOCH)
    assert (later, record.cells[0].n) == (period + 1, 1)


def test_a_clock_that_was_ahead_does_not_hold_the_counts_for_ever() -> None:
    book = ledger()
    add(book, judgement(0.2), after=48 * 3600)
    for period, _ in book.due(START + timedelta(hours=50), epoch=EPOCH):
        book.closed(period)
    assert book.due(START, epoch=EPOCH) == []
    add(book, judgement(0.2), after=60)
    ((period, _),) = book.due(START + timedelta(hours=2), epoch=EPOCH)
    assert period == period_of(START, hour_s=3600)


def test_many_cells_become_several_records_below_the_topics_limit() -> None:
    book = ledger()
    for i in range(2 * CELLS_PER_RECORD + 5):
        add(book, judgement(0.9, name=f"a-rather-long-class-name-{i}"), product=f"product-{i}")
    ((_, records),) = book.due(START + timedelta(seconds=3700), epoch=EPOCH)
    assert [len(r.cells) for r in records] == [100, 100, 5]
    assert [r.number for r in records] == [1, 2, 3]
    assert len({r.id for r in records}) == 3
    assert all(len(r.encode()) <= UP_LIMIT["agg"] for r in records)
    assert decode(Aggregate, records[0].encode()) == records[0]


def test_a_snapshot_restores_everything() -> None:
    book = ledger()
    add(book, judgement(0.2))
    add(book, judgement(0.9), selected=True, product="p")
    saved = json.loads(json.dumps(book.snapshot()))
    other = ledger()
    other.restore(saved)
    at = START + timedelta(seconds=3700)
    assert other.due(at, epoch=EPOCH) == book.due(at, epoch=EPOCH)


@pytest.mark.parametrize(
    "damaged", [{}, {"open": {"x": []}}, {"open": {"1": [{"key": []}]}, "epoch": "", "number": 0, "closed": 0}]
)
def test_a_damaged_snapshot_changes_nothing(damaged: dict[str, object]) -> None:
    book = ledger()
    add(book, judgement(0.2))
    with pytest.raises((KeyError, TypeError, ValueError, Malformed)):
        book.restore(damaged)
    assert len(book.due(START + timedelta(seconds=3700), epoch=EPOCH)) == 1
