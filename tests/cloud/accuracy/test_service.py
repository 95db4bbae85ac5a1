"""The accuracy service on a real database: which labels count, which totals are used, what is said without them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from cloud.accuracy.schemas import AccuracyRow
from cloud.accuracy.service import AccuracyService
from cloud.http import Problem
from tests.cloud.accuracy.rows import PERIOD, Book
from tests.cloud.kit import NOW, Plant


@pytest.fixture
def book(plant: Plant) -> Book:
    return Book(plant)


@pytest.fixture
def service(plant: Plant) -> AccuracyService:
    return AccuracyService(begin=plant.begin, reads=plant.reads, now=plant.clock)


def only(rows: list[AccuracyRow]) -> AccuracyRow:
    (row,) = rows
    return row


def thirty(book: Book, wrong: int = 3) -> list[str]:
    """30 labelled samples of the estimation queue, `wrong` of them called good and labelled crack."""
    return [book.sample("crack" if i < wrong else "good") for i in range(30)]


def test_an_unknown_line_is_404_and_a_quiet_one_is_empty(service: AccuracyService) -> None:
    assert service.by_period("cells") == []
    assert service.by_release("cells") == []
    with pytest.raises(Problem) as caught:
        service.by_period("nowhere")
    assert caught.value.status == 404


def test_a_period_with_labels_and_totals_uses_the_difference_estimator(book: Book, service: AccuracyService) -> None:
    thirty(book)
    book.aggregate(280, sum_g=252.0)
    book.aggregate(20, sum_g=0.0, predicted=None)
    row = only(service.by_period("cells"))
    assert (row.period, row.n_parts, row.judged, row.uploaded, row.labels, row.waiting) == (PERIOD, 300, 280, 30, 30, 0)
    assert (row.status, row.method, row.corrected) == ("ok", "difference", False)
    assert row.accuracy is not None
    assert row.accuracy.value == pytest.approx(0.9)
    assert row.accuracy.low < 0.9 < row.accuracy.high
    assert row.naive == pytest.approx(0.9)
    assert row.escape is not None
    assert row.escape.value == pytest.approx(1.0), "the three defective parts all passed"
    assert row.overkill is not None
    assert row.overkill.value == 0.0
    assert row.escaped is not None
    assert row.overkilled is not None
    assert (row.escaped.value, row.overkilled.value) == (pytest.approx(0.1), 0.0)
    assert row.escaped.low < 0.1 < row.escaped.high
    assert (row.as_of, row.last_label_at, row.starts_at) == (NOW, NOW, PERIOD * 3_600_000_000)


def test_hard_uploads_do_not_drag_the_estimate_down(book: Book, service: AccuracyService) -> None:
    for i in range(20):
        book.sample("crack" if i < 10 else "good", pi_select=1.0, pi_survive=1.0)
    for _ in range(20):
        book.sample("good", pi_select=0.1, pi_survive=0.5)
    book.aggregate(1000, sum_g=900.0)
    row = only(service.by_period("cells"))
    assert row.naive == pytest.approx(0.75)
    assert row.accuracy is not None
    assert row.accuracy.value > 0.95


def test_below_twenty_labels_there_is_no_figure(book: Book, service: AccuracyService) -> None:
    for _ in range(19):
        book.sample("good")
    book.aggregate(300, sum_g=270.0)
    row = only(service.by_period("cells"))
    assert (row.status, row.labels, row.needed, row.accuracy, row.escape) == ("not_enough_labels", 19, 20, None, None)


def test_the_value_queue_and_bulk_labels_never_estimate(book: Book, service: AccuracyService) -> None:
    thirty(book)
    for _ in range(50):
        book.sample("crack", queue="value")
    for _ in range(10):
        book.sample("crack", method="bulk")
    book.aggregate(300, sum_g=270.0)
    row = only(service.by_period("cells"))
    assert (row.labels, row.waiting, row.uploaded) == (30, 10, 90)
    assert row.accuracy is not None
    assert row.accuracy.value == pytest.approx(0.9)
    assert row.naive == pytest.approx(27 / 80)


def test_a_box_that_has_not_reported_leaves_hajeks_estimator(book: Book, service: AccuracyService) -> None:
    thirty(book)
    book.sample(edge="edge-2")
    book.aggregate(300, sum_g=270.0)
    row = only(service.by_period("cells"))
    assert (row.unreported, row.method, row.waiting) == (["edge-2"], "hajek", 1)
    book.aggregate(200, sum_g=170.0, edge="edge-2")
    assert only(service.by_period("cells")).method == "difference"


def test_a_half_labelled_queue_makes_the_interval_wider_not_the_value_other(
    book: Book, service: AccuracyService
) -> None:
    thirty(book)
    book.aggregate(300, sum_g=270.0)
    before = only(service.by_period("cells")).accuracy
    for _ in range(60):
        book.sample()
    after = only(service.by_period("cells"))
    assert after.waiting == 60
    assert before is not None
    assert after.accuracy is not None
    assert after.accuracy.value == pytest.approx(before.value)
    assert after.accuracy.effective is not None
    assert before.effective is not None
    assert after.accuracy.effective < before.effective


def test_corrections_and_undo_change_what_counts(book: Book, service: AccuracyService) -> None:
    sids = thirty(book, wrong=0)
    book.aggregate(300, sum_g=270.0)
    slip = book.label(sids[0], "crack", at=NOW + 1)

    def value(as_of: int | None = None) -> float:
        found = only(service.by_period("cells", as_of=as_of)).accuracy
        assert found is not None
        return found.value

    assert value() == pytest.approx(29 / 30)
    book.undo(sids[0], slip, at=NOW + 2)
    assert value() == pytest.approx(1.0)
    assert value(as_of=NOW + 1) == pytest.approx(29 / 30), "as of label time: what was known then"
    assert value(as_of=NOW) == pytest.approx(1.0)


def test_undoing_the_only_label_puts_the_sample_back_in_waiting(
    book: Book, service: AccuracyService, plant: Plant
) -> None:
    thirty(book)
    sid = book.sample()
    book.undo(sid, book.label(sid, "crack"))
    row = only(service.by_period("cells"))
    assert (row.labels, row.waiting) == (30, 1)


def test_gold_items_correct_reviewer_mistakes(book: Book, service: AccuracyService) -> None:
    thirty(book)
    book.aggregate(3000, sum_g=2700.0)
    plain = only(service.by_period("cells"))
    for i in range(40):
        book.sample("crack" if i < 2 else "good", gold="good", queue="value", period=PERIOD - 1)
    row = service.by_period("cells")[-1]
    assert (row.corrected, row.mistake_rate, row.gold) == (True, pytest.approx(0.05), 40)
    assert row.accuracy is not None
    assert plain.accuracy is not None
    assert row.accuracy.value == pytest.approx((plain.accuracy.value - 0.05) / 0.9)


def test_reviewers_who_guess_give_no_figure(book: Book, service: AccuracyService) -> None:
    thirty(book)
    for i in range(40):
        book.sample("crack" if i < 20 else "good", gold="good", queue="value", period=PERIOD - 1)
    row = service.by_period("cells")[-1]
    assert (row.status, row.accuracy, row.escape, row.overkill) == ("reviewers_unreliable", None, None, None)


def test_labels_of_a_class_the_line_no_longer_knows_are_left_out(book: Book, service: AccuracyService) -> None:
    thirty(book)
    book.sample("dent")
    row = only(service.by_period("cells"))
    assert (row.labels, row.waiting) == (30, 1)


def test_frames_nobody_could_judge_count_for_overkill_not_for_accuracy(book: Book, service: AccuracyService) -> None:
    thirty(book)
    for _ in range(10):
        book.sample("good", predicted=None, score=None, verdict="unsure")
    row = only(service.by_period("cells"))
    assert row.labels == 30
    assert row.overkill is not None
    assert row.overkill.labels == 37


def test_releases_are_kept_apart_and_periods_are_cut_to_the_newest(book: Book, service: AccuracyService) -> None:
    thirty(book, wrong=6)
    book.aggregate(300, sum_g=270.0)
    for i in range(30):
        book.sample("crack" if i < 1 else "good", release=2, period=PERIOD + 1)
    book.aggregate(300, sum_g=290.0, release=2, period=PERIOD + 1)
    first, second = service.by_release("cells")
    assert (first.release, second.release, first.period) == (1, 2, None)
    assert first.accuracy is not None
    assert second.accuracy is not None
    assert (first.accuracy.value, second.accuracy.value) == (pytest.approx(0.8), pytest.approx(29 / 30))
    assert [row.period for row in service.by_period("cells", periods=1)] == [PERIOD + 1]
    assert [row.period for row in service.by_period("cells")] == [PERIOD, PERIOD + 1]


def test_no_image_or_envelope_is_read(book: Book, service: AccuracyService, plant: Plant) -> None:
    from sqlalchemy import event

    thirty(book)
    seen: list[str] = []
    event.listen(plant.engine, "before_cursor_execute", lambda *call: seen.append(str(call[2])))
    service.by_period("cells")
    assert 0 < len(seen) < 12, "the number of statements does not grow with the samples"
    assert not any("samples.meta" in statement for statement in seen)


def test_a_window_of_periods_does_not_read_the_whole_history(
    plant: Plant, book: Book, service: AccuracyService
) -> None:
    """The plan of every query over samples by period; a line keeps years of them."""
    thirty(book)
    book.aggregate(100, sum_g=90.0)
    asked: list[tuple[str, Any]] = []
    event.listen(plant.engine, "before_cursor_execute", lambda _c, _k, text, values, *_: asked.append((text, values)))
    service.by_period("cells", periods=2)
    by_period = [one for one in asked if "samples.period >=" in one[0]]
    assert len(by_period) == 2
    with plant.engine.connect() as connection:
        for text, values in by_period:
            steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
            samples = [str(step[3]) for step in steps if " samples" in str(step[3])]
            assert samples, steps
            assert all("ix_samples_line_period (line=? AND period>?)" in one for one in samples), samples
