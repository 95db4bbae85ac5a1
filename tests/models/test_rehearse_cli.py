"""`edgeloop models rehearse` as a person types it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from models.cli import app
from models.nn import rehearsal
from models.nn.config import tiny
from models.nn.rehearsal import Plan, Rehearsed
from models.nn.starting import CannotTrain
from models.nn.training_speed import SpeedRow
from models.rehearse_cli import _document
from tests.models.nn.toy import picture


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products of a toy line."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for product, level in (("old", 120), ("fresh", 70)):
        for i in range(40):
            for label in ("good", "scratch"):
                name = f"{product}-{label}-{i}.png"
                pixels = picture(i + 500 * (label == "scratch"), defect=label == "scratch", level=level)
                cv2.imwrite(str(folder / name), pixels)
                rows.append((name, label, product, f"{product} {i // 4}"))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "label", "domain", "group"), *rows])
    return folder


def call(*words: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["rehearse", *words])
    return found.exit_code, found.stdout, found.stderr


SMALL = ("--preset", "nano", "--images", "20", "--steps", "3", "--batch", "8", "--batches", "4", "--device", "cpu")


def test_one_command_prints_every_figure_and_says_that_weights_are_random(images: Path, tmp_path: Path) -> None:
    code, out, err = call("--data", str(images), "--out", str(tmp_path / "b"), *SMALL, "--swaps", "0")
    assert code == 0, err
    assert "weights: none: random weights, seed 0" in out
    assert "| shipped files with adapter against torch |" in out
    assert re.search(r"\| plain \| 4 \| [1-9]\d* \|.* \| - \| \d+\.\d \|\n", out), "no GPU memory on a processor"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert all(f"| {name} | {p} | " in out for name in ("before", "after") for p in ("old", "fresh"))


def test_the_document_holds_null_for_what_was_not_measured() -> None:
    speed = SpeedRow(4, compiled=False, images_per_s=10.0)
    document = _document(Rehearsed("the processor", 0.1, ("old", "fresh"), speed=[speed]), Plan(tiny("1.7b"), None))
    assert json.loads(json.dumps(document, allow_nan=False))["speed"][0]["peak_gb"] is None
    assert (document["preset"], document["image_tokens"], document["swaps"]) == ("1.7b-tiny", 16, None)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--device", "cuda:99"), 2, "CUDA devices here"),
        (("--known", "other"), 4, "column domain of labels.csv"),
        (("--classes", "scratch"), 4, "no good class"),
        (("--preset", "2b"), 2, "no preset '2b'"),
        (("--batches", "8,x"), 2, "whole numbers"),
        (("--batches", ","), 2, "whole numbers"),
        (("--device", "cpu:7"), 2, "write auto, cpu, cuda"),
        (("--prompt", "p.txt"), 2, "--prompt needs --checkpoint"),
        (("--checkpoint", "nowhere", "--preset", "1.7b"), 1, "nowhere is no directory"),
        (("--checkpoint", "nowhere"), 1, "nano takes no published checkpoint"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    images: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    out = tmp_path / "c"
    found = call("--data", str(images), "--out", str(out), *SMALL, *words)
    assert (found[0], said in found[2].splitlines()[-1]) == (code, True), found[2]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_after_the_build_leaves_nothing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def fail(*_: object, **__: object) -> None:
        seen.extend(path.name for path in tmp_path.rglob("trunk.onnx"))
        raise CannotTrain("no head can be made")

    monkeypatch.setattr(rehearsal, "first_release", fail)
    code, _, err = call("--data", str(images), "--out", str(tmp_path / "a" / "c"), *SMALL)
    assert (code, "no head can be made" in err, seen) == (4, True, ["trunk.onnx"])
    assert list(tmp_path.iterdir()) == []
