"""What is abnormal and what is said, as tables."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from cloud.accuracy.schemas import AccuracyRow
from cloud.dashboard import views
from cloud.dashboard.i18n import Speech
from cloud.dashboard.queries import LineState
from cloud.dashboard.sources import Estimate, PeriodAccuracy, accuracy
from cloud.db.tables import Line, Release

SAY = Speech("en")
HOUR = 3_600_000_000
LINE = Line(name="cells", title="Cells", hour_s=3600.0, escape_cost=0.0, overkill_cost=0.0, currency="EUR")


def row(period: int, value: float | None, *, half: float = 0.03) -> views.PeriodRow:
    estimate = None if value is None else Estimate(value, max(0.0, value - half), min(1.0, value + half))
    known = PeriodAccuracy(period, 30 if estimate else 4, 20, estimate, None, None)
    return views.PeriodRow(period, period * HOUR, f"h{period}", 100, 30, 10, 5, 5, known, None)


def state(*, stored_at: int | None = 0, boxes: int = 3, online: int = 3) -> LineState:
    return LineState(stored_at, 0, boxes, online, 0, 0)


def release(number: int, live_at: int | None, *, rollback_of: int | None = None) -> Release:
    return Release(line="cells", number=number, live_at=live_at, rollback_of=rollback_of)


def picture(values: list[float | None], *releases: Release, now: int = 0, **kwargs: object) -> views.LinePicture:
    rows = [row(i, value) for i, value in enumerate(values)]
    return views.picture(SAY, LINE, state(**kwargs), rows, list(releases), now=now)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "grade"),
    [
        ([], ""),
        ([0.95], ""),
        ([0.95, 0.94], ""),
        ([0.95, 0.40], "bad"),
        ([0.95, 0.40, 0.93], ""),
        ([None, 0.95, None, 0.5, None], "bad"),
        ([0.4, 0.95], ""),
        ([None, None], ""),
    ],
)
def test_a_drop_is_abnormal_only_when_the_intervals_part(values: list[float | None], grade: str) -> None:
    assert picture(values).grade == grade


@pytest.mark.parametrize(
    ("age_s", "alarm"), [(0, None), (7200, None), (7260, "No sample for 2 h"), (200_000, "No sample for 2 days")]
)
def test_silence_is_abnormal_after_two_periods(age_s: int, alarm: str | None) -> None:
    found = picture([0.9], now=age_s * 1_000_000).alarms
    assert [one.text for one in found] == ([alarm] if alarm else [])


def test_a_line_that_never_stored_anything_is_not_late() -> None:
    assert picture([], stored_at=None, now=10**15).alarms == []


def test_boxes_offline_are_counted() -> None:
    assert [one.text for one in picture([], online=1).alarms] == ["2 boxes offline"]


def test_the_release_of_a_period_is_the_one_live_at_its_end() -> None:
    releases = [release(3, None), release(2, 2 * HOUR), release(1, HOUR)]
    assert [views.release_at(releases, at) for at in (0, HOUR, 2 * HOUR - 1, 9 * HOUR)] == [None, 1, 1, 2]


def test_markers_stand_where_the_release_went_live() -> None:
    rows = [row(i, 0.9) for i in range(3)]
    found = views.positions(rows, [release(2, HOUR + HOUR // 2), release(1, 0), release(9, None)], 3600.0)
    assert [(x, one.number) for x, one in found] == [(-0.5, 1), (1.0, 2)]
    assert views.positions([], [release(1, 0)], 3600.0) == []
    late = views.positions(rows, [release(1, 50 * HOUR)], 3600.0)
    assert [x for x, _ in late] == [2.5]


def test_the_chart_leaves_gaps_where_labels_are_few() -> None:
    data = views.series(SAY, picture([0.9, None, 0.8], release(1, HOUR), release(2, 2 * HOUR, rollback_of=1)))
    assert data["value"] == [0.9, None, 0.8]
    assert data["low"][1] is None  # type: ignore[index]
    assert data["tips"][1][1] == "not enough labels: 4 of 20"  # type: ignore[index]
    assert [one["label"] for one in data["releases"]] == ["release 1", "release 2 (rollback)"]  # type: ignore[attr-defined]


def test_the_small_chart_breaks_at_gaps_and_stays_in_its_box() -> None:
    drawn = views.spark(picture([0.9, 0.8, None, 0.7, 0.75, None, 0.9]))
    assert len(drawn.trends) == 2
    assert len(drawn.bands) == 2
    assert len(drawn.dots) == 1
    rng = random.Random(3)
    for _ in range(50):
        values = [rng.choice([None, rng.random()]) for _ in range(rng.randint(0, 12))]
        drawn = views.spark(picture(values))
        numbers = [float(n) for path in drawn.trends for pair in path[1:].split("L") for n in pair.split(",")]
        assert all(-0.1 <= number <= 200.1 for number in numbers)


def test_few_labels_after_a_judged_period_are_said() -> None:
    found = picture([0.9, None])
    assert found.judged is not None
    assert found.few is not None
    assert views.not_enough(SAY, found.few.accuracy) == "not enough labels: 4 of 20"  # type: ignore[arg-type]
    assert picture([0.9]).few is None


def test_an_answer_of_the_accuracy_service_is_read_whole() -> None:
    share = {"value": 0.9, "low": 0.8, "high": 0.95, "labels": 40, "effective": 30.0, "method": "difference"}
    answer = AccuracyRow.model_validate(
        {"period": 7, "n_parts": 100, "judged": 100, "uploaded": 60, "labels": 40, "waiting": 0, "needed": 20,
         "status": "ok", "accuracy": share, "escape": share, "overkill": None, "unreported": ["edge-2"], "as_of": 1}
    )  # fmt: skip
    services = SimpleNamespace(accuracy=SimpleNamespace(by_period=lambda line: [answer]))
    estimate = Estimate(0.9, 0.8, 0.95)
    assert accuracy(services, "cells") == {
        7: PeriodAccuracy(7, 40, 20, estimate, estimate, None, unreported=("edge-2",))
    }


def test_unreliable_reviewers_are_named_as_the_reason() -> None:
    known = PeriodAccuracy(1, 60, 20, None, None, None, status="reviewers_unreliable", mistake_rate=0.31)
    assert views.not_enough(SAY, known) == "reviewers err too often to tell: 31.0% on control parts"


def test_parts_are_spoken_of_only_where_they_are_estimated() -> None:
    share = Estimate(0.05, 0.04, 0.06)
    known = PeriodAccuracy(1, 60, 20, share, share, share, escaped=Estimate(0.02, 0.01, 0.03))
    costs = views.PeriodRow(1, 0, "h1", 500, 0, 0, 0, 0, known, None).costs
    assert [(cost.kind, cost.parts) for cost in costs] == [("escape", 10.0), ("overkill", None)]


def test_compressed_hours_show_seconds() -> None:
    assert views.period_label(Speech("en"), 0, 40.0).count(":") == 2
    assert views.period_label(Speech("en"), 0, 3600.0).count(":") == 1
