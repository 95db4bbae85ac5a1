from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cloud.http import Problem
from cloud.lines.schemas import LineSpec, NewClass, ReferenceItem
from tests.cloud.registry.world import LINE, START, World, image

GOOD, SCRATCH = NewClass(name="good", defect=False), NewClass(name="scratch", defect=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.add_line(cameras=["cam-1"], hour_s=40.0)
    return made


def spec(**fields: object) -> LineSpec:
    return LineSpec.model_validate({"name": "a", "title": "A", "classes": [GOOD, SCRATCH], **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classes": [GOOD, NewClass(name="ok", defect=False)]}, "no defect class"),
        ({"classes": [SCRATCH, NewClass(name="dent", defect=True)]}, "no good class"),
        ({"classes": [GOOD, SCRATCH, SCRATCH]}, "two classes"),
        ({"classes": [NewClass(name="good", defect=False, must_catch=True), SCRATCH]}, "must-catch"),
        ({"cameras": ["a", "a"]}, "two cameras"),
        ({"escape_cost": -1}, "greater than or equal"),
        ({"hour_s": 0}, "greater than 0"),
        ({"name": "Not A Name"}, "pattern"),
        ({"title": "  "}, "pattern"),
        ({"colour": "blue"}, "Extra inputs"),
    ],
)
def test_a_line_that_cannot_work_is_refused_with_words(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**fields)


def test_create_twice_is_one_line_and_another_spec_is_a_conflict(world: World) -> None:
    first = world.lines.create(spec())
    world.clock.forward(5)
    assert world.lines.create(spec()) == first
    with pytest.raises(Problem, match="other settings"):
        world.lines.create(spec(escape_cost=3))
    assert [line.name for line in world.lines.all()] == ["a", LINE]


def test_period_counts_the_lines_own_hours(world: World) -> None:
    line = world.lines.get(LINE)
    assert line.period(START) == START // 40_000_000
    assert line.period(START + 40_000_000) == line.period(START) + 1
    assert line.period(START + 39_999_999) == line.period(START)


def test_unknown_line_is_404(world: World) -> None:
    with pytest.raises(Problem) as fault:
        world.lines.get("nowhere")
    assert fault.value.status == 404


def test_a_class_is_added_and_never_twice(world: World) -> None:
    changed = world.lines.add_class(LINE, NewClass(name="dent", defect=True), actor="ana")
    assert [c.name for c in changed.classes] == ["good", "scratch", "dent"]
    with pytest.raises(Problem, match="dent"):
        world.lines.add_class(LINE, NewClass(name="dent", defect=True), actor="ana")


def test_references_are_imported_once_and_count_from_their_moment(world: World) -> None:
    now = [ReferenceItem(image((200, 0, 0), i), "scratch", domain="mono", group=f"g{i}") for i in range(3)]
    later = [ReferenceItem(image((0, 200, 0), 9), "good", domain="poly")]
    assert world.lines.add_references(LINE, "gate", now).added == 3
    assert world.lines.add_references(LINE, "gate", now).known == 3
    world.lines.add_references(LINE, "gate", later, active_from=START + 1)
    assert [r.label for r in world.lines.references(LINE, "gate")] == ["scratch"] * 3
    assert len(world.lines.references(LINE, "gate", START + 1)) == 4
    found = world.lines.references(LINE, "gate")[0]
    assert world.blobs.read(found.sha256) == now[0].data
    assert world.lines.counts(LINE, "gate", START + 1).by_domain == {"mono": 3, "poly": 1}


def test_the_same_image_twice_in_one_import_is_one(world: World) -> None:
    item = ReferenceItem(image((200, 0, 0), 1), "scratch")
    assert world.lines.add_references(LINE, "gate", [item, item]).added == 1


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (ReferenceItem(b"no image", "good"), "unreadable_image"),
        (ReferenceItem(image((9, 9, 9), 0)[:60], "good"), "unreadable_image"),
        (ReferenceItem(image((9, 9, 9), 0), "dent"), "unknown_label"),
    ],
)
def test_bad_reference_stops_the_whole_import(world: World, item: ReferenceItem, code: str) -> None:
    with pytest.raises(Problem) as fault:
        world.lines.add_references(LINE, "gate", [ReferenceItem(image((1, 1, 1), 5), "good"), item])
    assert fault.value.code == code
    assert world.lines.references(LINE, "gate") == []


def test_what_is_trained_on_may_not_judge(world: World) -> None:
    item = ReferenceItem(image((200, 0, 0), 1), "scratch", group="module-1")
    world.lines.add_references(LINE, "gate", [item])
    with pytest.raises(Problem, match="module-1"):
        world.lines.add_references(LINE, "memory", [ReferenceItem(image((0, 0, 9), 2), "good", group="module-1")])
    with pytest.raises(Problem) as fault:
        world.lines.add_references(LINE, "memory", [ReferenceItem(item.data, "scratch")])
    assert fault.value.code == "image_in_both_sets"


def test_an_image_keeps_its_label(world: World) -> None:
    data = image((200, 0, 0), 1)
    world.lines.add_references(LINE, "gate", [ReferenceItem(data, "scratch")])
    with pytest.raises(Problem) as fault:
        world.lines.add_references(LINE, "gate", [ReferenceItem(data, "good")])
    assert fault.value.code == "label_differs"


def test_a_store_that_is_down_leaves_no_row(world: World) -> None:
    world.objects.down = True
    with pytest.raises(Exception, match="down"):
        world.lines.add_references(LINE, "gate", [ReferenceItem(image((200, 0, 0), 1), "scratch")])
    world.objects.down = False
    assert world.lines.references(LINE, "gate") == []
