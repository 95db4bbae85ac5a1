"""The belt shows real pictures, a little changed, whole files only; and the commands' usage errors."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from simulators.belt import NoImages, run_belt
from simulators.cli import app


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)
        cv2.imwrite(str(folder / f"cell{number}.png"), pixels)
    return folder


def show(images: Path, into: Path, *, count: int = 3, seed: int = 1) -> list[bytes]:
    assert run_belt(images, into, every_s=0.0, count=count, seed=seed, stop=threading.Event()) == count
    return [path.read_bytes() for path in sorted(into.iterdir())]


def test_parts_come_in_order_and_start_over_as_new_pictures(images: Path, tmp_path: Path) -> None:
    shown = show(images, tmp_path / "into")
    names = sorted(path.name for path in (tmp_path / "into").iterdir())
    assert names == ["000000-cell0.png", "000001-cell1.png", "000002-cell0.png"]
    assert len(set(shown)) == 3


def test_the_seed_decides_the_pictures(images: Path, tmp_path: Path) -> None:
    assert show(images, tmp_path / "a") == show(images, tmp_path / "b")
    assert show(images, tmp_path / "c", seed=2) != show(images, tmp_path / "d", seed=3)


def test_a_stopped_belt_shows_nothing_more(images: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert run_belt(images, tmp_path / "into", every_s=1.0, count=0, seed=0, stop=stop) == 0


def test_a_folder_without_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoImages, match="has no image"):
        show(tmp_path, tmp_path / "into")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(NoImages, match=r"broken\.png cannot be read"):
        show(tmp_path, tmp_path / "into")


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def test_the_camera_command_shows_parts(images: Path, tmp_path: Path) -> None:
    code, text = run(
        "camera", "--images", str(images), "--into", str(tmp_path / "x"), "--every-s", "0.01", "--count", "2"
    )
    assert (code, text) == (0, "2 parts shown\n")
    assert len(list((tmp_path / "x").iterdir())) == 2


def test_usage_errors_are_one_line_and_code_2(images: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    common = ["reviewer", "--line", "cells", "--truth", str(truth)]
    for arguments, text in (
        (["camera", "--images", str(tmp_path), "--into", str(tmp_path / "x")], "has no image"),
        ([*common, "--classes", "good,defective"], "no token"),
        ([*common, "--classes", "good", "--token", "t"], "at least two names"),
        ([*common, "--classes", "good,defective", "--token", "t"], "No such file"),
    ):
        code, said = run(*arguments)
        assert code == 2
        assert text in said
        assert said.count("\n") == 1
