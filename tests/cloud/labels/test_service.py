"""Labels: one open task per sample, history kept, corrections and undo, clear problems."""

from __future__ import annotations

import pytest

from cloud.db.tables import Audit, FlagRow, Label, Task
from cloud.http import Problem
from cloud.labels.service import LabelService
from tests.cloud.kit import Plant, Shot, png

N = 12


@pytest.fixture
def labels(plant: Plant) -> LabelService:
    for seq in range(1, N + 1):
        plant.upload(Shot(seq, png(seq), u=seq / 100))
    return LabelService(begin=plant.begin, reads=plant.reads, now=plant.clock)


def sids(labels: LabelService) -> list[str]:
    return [task.sid for task in labels.queue("cells", 100).tasks]


def problem(code: str, call, *args, **more) -> Problem:  # type: ignore[no-untyped-def]
    with pytest.raises(Problem) as caught:
        call(*args, **more)
    assert caught.value.code == code
    return caught.value


def test_the_queue_offers_estimates_first_then_by_value(labels: LabelService) -> None:
    page = labels.queue("cells", 100)
    keys = [(task.queue, -task.value) for task in page.tasks]
    assert keys == sorted(keys)
    assert {task.queue for task in page.tasks} == {"estimate", "value"}
    assert sum(page.open.values()) == N
    assert page.next is None
    task = page.tasks[0]
    assert (task.predicted, task.verdict, task.image_url) == ("crack", "reject", f"/api/v1/samples/{task.sid}/image")
    assert [spec["name"] for spec in task.classes] == ["good", "crack"]


def test_pages_follow_one_another_without_gap_or_repeat_while_labels_come_in(labels: LabelService) -> None:
    everything, seen, cursor = sids(labels), [], None
    while True:
        page = labels.queue("cells", 5, cursor)
        seen += [task.sid for task in page.tasks]
        labels.label(page.tasks[0].sid, "good", "ann")
        cursor = page.next
        if cursor is None:
            break
    assert seen == everything
    assert len(sids(labels)) == N - 3


def test_a_label_closes_the_task_and_counts(plant: Plant, labels: LabelService) -> None:
    sid = sids(labels)[0]
    made = labels.label(sid, "crack", "ann", note="clear")
    assert (made.name, made.author, made.counts) == ("crack", "ann", True)
    assert sid not in sids(labels)
    (current,) = labels.current("cells")
    assert (current.sid, current.name, current.author, current.queue) == (sid, "crack", "ann", "estimate")
    assert current.pi == pytest.approx(0.5 * 0.3)
    assert current.pi_upload == pytest.approx(0.5)


def test_a_correction_is_a_newer_label_and_the_older_stays(labels: LabelService) -> None:
    sid = sids(labels)[0]
    labels.label(sid, "good", "ann")
    labels.label(sid, "crack", "bob")
    assert [(one.sid, one.name) for one in labels.current("cells")] == [(sid, "crack")]
    history = labels.sample(sid).history
    assert [(row.name, row.author, row.counts) for row in history] == [("good", "ann", False), ("crack", "bob", True)]


def test_undo_brings_back_the_label_before_and_then_the_task(plant: Plant, labels: LabelService) -> None:
    sid = sids(labels)[0]
    first = labels.label(sid, "good", "ann")
    second = labels.label(sid, "crack", "ann")
    labels.undo(second.id, "ann")
    assert [one.name for one in labels.current("cells")] == ["good"]
    assert sid not in sids(labels)
    labels.undo(first.id, "ann")
    assert labels.current("cells") == []
    assert sid in sids(labels)
    late = labels.label(sid, "crack", "bob")
    assert [one.label_id for one in labels.current("cells")] == [late.id]
    assert len(plant.rows(Label)) == 5


def test_undo_has_its_limits(labels: LabelService) -> None:
    made = labels.label(sids(labels)[0], "good", "ann")
    assert problem("not_yours", labels.undo, made.id, "bob").status == 403
    undo = labels.undo(made.id, "ann")
    assert problem("already_undone", labels.undo, made.id, "ann").status == 409
    assert problem("not_found", labels.undo, undo.id, "ann").status == 404
    assert problem("not_found", labels.undo, 999, "ann").status == 404


def test_a_label_as_of_a_moment_does_not_know_what_came_later(plant: Plant, labels: LabelService) -> None:
    sid = sids(labels)[0]
    made = labels.label(sid, "good", "ann")
    then = plant.clock.us
    plant.clock.advance(1)
    labels.undo(made.id, "ann")
    plant.clock.advance(1)
    labels.label(sid, "crack", "ann")
    assert [one.name for one in labels.current("cells", as_of=then)] == ["good"]
    assert labels.current("cells", as_of=then + 1_000_000) == []
    assert [one.name for one in labels.current("cells")] == ["crack"]


def test_skip_closes_and_a_late_label_still_counts(plant: Plant, labels: LabelService) -> None:
    sid = sids(labels)[0]
    assert labels.skip(sid, "ann") == "skipped"
    assert sid not in sids(labels)
    assert problem("not_open", labels.skip, sid, "ann").status == 409
    labels.label(sid, "good", "bob")
    assert next(task for task in plant.rows(Task) if task.sid == sid).state == "labelled"
    assert [row.action for row in plant.rows(Audit)] == ["sample_skipped"]


def test_flag_asks_for_a_second_look(plant: Plant, labels: LabelService) -> None:
    sid = sids(labels)[0]
    identity = labels.flag(sid, "ann", "blurred")
    (row,) = plant.rows(FlagRow)
    assert (row.id, row.sid, row.reason) == (identity, sid, "ann: blurred")


def test_what_does_not_exist_is_said_clearly(labels: LabelService) -> None:
    sid = sids(labels)[0]
    assert "no sample" in problem("not_found", labels.label, "nope", "good", "ann").detail
    refused = problem("unknown_class", labels.label, sid, "scratch", "ann")
    assert refused.extra == {"classes": ["good", "crack"]}
    assert "good, crack" in refused.detail
    problem("not_found", labels.queue, "nowhere")
    problem("not_found", labels.current, "nowhere")
    problem("not_found", labels.sample, "nope")
    problem("not_found", labels.flag, "nope", "ann", "x")
    for cursor in ("?", "bm90IGpzb24=", "WzEsMl0=", "WyJhIiwieCIsImMiXQ=="):
        problem("bad_cursor", labels.queue, "cells", 5, cursor)
    assert labels.current("cells") == []
