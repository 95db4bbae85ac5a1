"""A cached model is named by everything that decides it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from simulators.cells import Cell, read_cells, split
from simulators.demo import training
from simulators.demo.scenario import Scenario
from simulators.demo.training import Request, code_digest, obtain
from simulators.servers.children import Servers


@pytest.fixture(scope="module")
def cells() -> tuple[Cell, ...]:
    return split(read_cells(), seed=7).base[:5]


def request_of(cells: tuple[Cell, ...], **change: object) -> Request:
    fields = {"kind": "starting", "cells": cells, "replay": (), "validation": (), "scenario": Scenario()} | change
    return Request(**fields)  # type: ignore[arg-type]


def test_the_same_request_has_the_same_name(cells: tuple[Cell, ...]) -> None:
    assert request_of(cells).name() == request_of(cells).name()


def test_whatever_decides_the_outcome_changes_the_name(cells: tuple[Cell, ...], tmp_path: Path) -> None:
    turned = (replace(cells[0], probability=1 - cells[0].probability), *cells[1:])
    names = {
        request_of(cells).name(),
        request_of(cells[1:]).name(),
        request_of(turned).name(),
        request_of(cells, replay=cells[:1]).name(),
        request_of(cells, validation=cells[:1]).name(),
        request_of(cells, kind="joint").name(),
        request_of(cells, kind="joint", starting=tmp_path / "starting-abc").name(),
        request_of(cells, scenario=Scenario(seed=8)).name(),
        request_of(cells, scenario=Scenario(preset="1.7b")).name(),
    }
    assert len(names) == 9


def test_how_the_run_goes_does_not_change_the_name(cells: tuple[Cell, ...]) -> None:
    assert request_of(cells).name() == request_of(cells, scenario=Scenario(hours=5, edges=2)).name()


def test_the_code_is_part_of_the_name(cells: tuple[Cell, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_digest()
    (tmp_path / "module.py").write_text("x = 1\n")
    monkeypatch.setattr(training, "SOURCES", (*training.SOURCES, tmp_path))
    with_module = code_digest()
    (tmp_path / "module.py").write_text("x = 2\n")
    assert len({before, with_module, code_digest()}) == 3


def test_a_complete_folder_is_used_and_nothing_is_started(cells: tuple[Cell, ...], tmp_path: Path) -> None:
    request = request_of(cells)
    folder = tmp_path / f"starting-{request.name()}"
    folder.mkdir()
    (folder / "complete").touch()
    with Servers(tmp_path / "logs") as servers:
        assert obtain(request, tmp_path, servers, fresh=False) == (folder, True)
        assert servers.children == {}


def test_the_training_process_is_told_every_image(cells: tuple[Cell, ...], tmp_path: Path) -> None:
    document = request_of(cells, kind="joint", replay=cells[:2]).document(tmp_path)
    images = document["images"]
    assert isinstance(images, list)
    assert images[0] == {
        "path": str(cells[0].path), "label": cells[0].label, "domain": "mono", "group": f"block-{cells[0].block}",
    }  # fmt: skip
    assert len(images) == 5
