"""The plan of a run: deterministic, distinct cells, no truth in what agents read."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.selector.pace import ENVELOPE_BYTES
from simulators.camera import read_schedule
from simulators.cells import Cell, read_cells, split
from simulators.demo.scenario import BadScenario, Scenario
from simulators.demo.schedule import Showing, bytes_per_hour, plan, read_truth, write_schedules, write_truth

FIRST = 1_000_000.0


@pytest.fixture(scope="module")
def stream() -> tuple[Cell, ...]:
    return split(read_cells(), seed=7).stream


@pytest.fixture(scope="module")
def showings(stream: tuple[Cell, ...]) -> list[Showing]:
    return plan(Scenario(), stream)


def test_the_same_scenario_is_the_same_run(stream: tuple[Cell, ...], showings: list[Showing]) -> None:
    assert plan(Scenario(), stream) == showings
    assert plan(Scenario(seed=8), stream) != showings


def test_hours_are_full_of_distinct_cells_and_no_poly_cell_comes_twice(showings: list[Showing]) -> None:
    assert Counter(part.hour for part in showings) == dict.fromkeys(range(1, 9), 120)
    for hour in range(1, 9):
        assert len({part.cell for part in showings if part.hour == hour}) == 120
    assert len({part.cell for part in showings if part.kind == "poly"}) == 720
    assert len({part.serial for part in showings}) == 960


def test_the_change_comes_after_hour_two(showings: list[Showing]) -> None:
    assert {part.hour for part in showings if part.kind == "mono"} == {1, 2}
    assert {part.hour for part in showings if part.kind == "poly"} == {3, 4, 5, 6, 7, 8}


def test_boxes_take_turns_and_parts_lie_within_their_hour(showings: list[Showing]) -> None:
    assert Counter(part.edge for part in showings) == dict.fromkeys(("edge-1", "edge-2", "edge-3"), 320)
    assert all((part.hour - 1) * 40 < part.offset < part.hour * 40 for part in showings)
    assert [part.offset for part in showings] == sorted(part.offset for part in showings)


def test_a_stream_that_runs_out_starts_over(stream: tuple[Cell, ...]) -> None:
    longer = plan(Scenario(hours=12), stream)
    assert len(longer) == 12 * 120
    poly = [part.cell for part in longer if part.kind == "poly"]
    assert len(set(poly)) == len({cell.index for cell in stream if cell.kind == "poly"})
    assert max(Counter(poly).values()) == 2
    assert len({part.seed for part in longer}) > 1400  # a cell seen again is another picture


def test_cameras_read_what_was_planned_and_nothing_of_the_truth(showings: list[Showing], tmp_path: Path) -> None:
    files = write_schedules(showings, tmp_path, first=FIRST)
    assert sorted(files) == ["edge-1", "edge-2", "edge-3"]
    mine = [part for part in showings if part.edge == "edge-2"]
    due = read_schedule(files["edge-2"])
    assert [(one.serial, one.path, one.seed) for one in due] == [(part.serial, part.path, part.seed) for part in mine]
    assert due[0].at == pytest.approx(FIRST + mine[0].offset, abs=0.001)
    assert set(json.loads(files["edge-2"].read_text().splitlines()[0])) == {"serial", "at", "path", "seed"}


def test_serials_do_not_tell_good_from_defective(stream: tuple[Cell, ...]) -> None:
    turned = [replace(cell, probability=1 - cell.probability) for cell in stream]
    assert [part.serial for part in plan(Scenario(), turned)] == [part.serial for part in plan(Scenario(), stream)]


def test_the_truth_comes_back_by_serial(showings: list[Showing], tmp_path: Path) -> None:
    write_truth(showings, tmp_path / "truth.jsonl")
    assert read_truth(tmp_path / "truth.jsonl") == {part.serial: part.label for part in showings}


def test_a_damaged_truth_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "truth.jsonl").write_text('{"serial": "P1", "label": "good"}\n{"serial": "P2"}\n')
    with pytest.raises(ValueError, match="line 2: a part needs serial and label"):
        read_truth(tmp_path / "truth.jsonl")


def test_the_budget_is_a_share_of_the_bytes_a_box_sees(showings: list[Showing]) -> None:
    frame_bytes = 30_000.0 - ENVELOPE_BYTES
    assert bytes_per_hour(showings, Scenario(upload_share=0.25), frame_bytes=frame_bytes) == 300_000


def test_hour_one_begins_on_the_border_of_a_period() -> None:
    assert Scenario().next_start(1000.0, lead_s=20) == 1040
    assert Scenario().next_start(1020.1, lead_s=20) == 1080


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hours": 0}, "hours is 0: choose 1 to 1000"),
        ({"hours": 3}, "at least 2 hours after it"),
        ({"edges": 33}, "edges is 33"),
        ({"hour_s": 5}, "hour_s is 5"),
        ({"mistakes": 0.5}, "mistakes is 0.5"),
        ({"label_share": 0.0}, "label_share is 0.0"),
        ({"parts_per_hour": 2}, "fewer than the 3 edges"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, float], text: str) -> None:
    with pytest.raises(BadScenario, match=text):
        Scenario(**change)  # type: ignore[arg-type]
