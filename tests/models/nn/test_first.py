"""A first release on a base that was built: a fitted head, and classes that have nothing but their word."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.cli import app
from models.nn import config as sizes
from models.nn.config import tiny
from models.nn.heads import fit_head, word_scale
from models.runtime.bundle import read_starting
from models.runtime.image import decode_image
from models.runtime.inspector import inspect
from tests.models.nn.checkpoint_folder import PROMPT, write_transformers
from tests.models.nn.toy import picture

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes, a built base with a language head of its own, and one of random weights."""
    root = tmp_path_factory.mktemp("first")
    for label, defect in (("good", False), ("scratch", True)):
        (root / "images" / label).mkdir(parents=True)
        for seed in range(24):
            image = picture(2 * seed + defect, defect=defect)
            (root / "images" / label / f"{seed}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    write_transformers(root / "published", tied=False)
    (root / "prompt.txt").write_text(PROMPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sizes.PRESETS, "1.7b-tiny", tiny("1.7b"))
        run("build", "--preset", "1.7b-tiny", "--checkpoint", root / "published", "--prompt", root / "prompt.txt",
            "--out", root / "base")  # fmt: skip
        run("build", "--preset", "1.7b-tiny", "--out", root / "random")
    return root


def run(*arguments: str | Path, code: int = 0) -> str:
    done = RUNNER.invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def train(folder: Path, base: str, out: Path, *more: str, code: int = 0) -> str:
    return run("train", "--line", "cells", "--data", folder / "images", "--base", folder / base, "--out", out,
               "--no-flips", *more, code=code)  # fmt: skip


def test_a_head_on_a_frozen_base_tells_the_classes_apart(folder: Path, tmp_path: Path) -> None:
    said = train(folder, "base", tmp_path / "model")
    bundle = read_starting(tmp_path / "model")
    assert bundle.base.licence == "deepseek"
    assert bundle.adapter.adapter is None
    assert bundle.metrics["loss_last"] < bundle.metrics["loss_first"]
    assert "accuracy" in said
    model = bundle.model()
    image = next((folder / "images" / "scratch").iterdir()).read_bytes()
    found = inspect(model, decode_image(image))
    assert found.probabilities is not None
    assert np.isfinite(found.probabilities).all()


def test_a_class_without_images_starts_as_its_word(folder: Path, tmp_path: Path) -> None:
    said = train(folder, "base", tmp_path / "model", "--also", "dent")
    bundle = read_starting(tmp_path / "model")
    assert [spec.name for spec in bundle.adapter.head.classes] == ["good", "dent", "scratch"]
    assert "recall_dent" not in bundle.metrics
    assert "| dent |" not in said


def test_words_need_a_base_that_knows_them(folder: Path, tmp_path: Path) -> None:
    assert "knows no words" in train(folder, "random", tmp_path / "model", "--also", "dent", code=4)
    assert "has images already" in train(folder, "base", tmp_path / "model", "--also", "scratch", code=2)
    assert "among the good classes" in train(folder, "base", tmp_path / "model", "--also", "ok", code=2)
    assert "needs --base" in run(
        "train", "--line", "cells", "--data", folder / "images", "--out", tmp_path / "m", "--also", "dent", code=2
    )
    assert "edgeloop models build" in train(folder, "images", tmp_path / "model", code=2)


def test_the_prior_holds_what_labels_do_not_move() -> None:
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(60, 5, generator=generator)
    y = (f[:, 0] > 0).long()
    prior = torch.zeros(3, 5)
    prior[2, 3] = 2.0
    weight, bias = fit_head(f, y, torch.ones(60), classes=3, decay=0.05, prior=prior)
    assert weight[2, 3] > 1.0, "nobody labelled class 2: it stays near its word"
    assert bias[2] < bias[:2].min(), "and is not guessed without cause"
    free, _ = fit_head(f, y, torch.ones(60), classes=3, decay=0.05)
    assert free[2].abs().max() < weight[2].abs().max()


def test_words_that_explain_nothing_weigh_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(200, 6, generator=generator)
    y = (f[:, 0] > 0).long()
    right = torch.nn.functional.normalize(torch.tensor([[-1.0, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0]]), dim=1)
    assert word_scale(f, y, torch.ones(200), right) > 1
    assert word_scale(f, y, torch.ones(200), -right) == 0
