"""A rehearsal at toy size, how it divides images, and the ranks it judges by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from models.nn.adapt import AdaptSettings, LoraTraining
from models.nn.build import Source
from models.nn.config import tiny
from models.nn.heads import Batches
from models.nn.lora import quantized_copy, with_lora
from models.nn.rehearsal import Plan, Rehearsal, auroc, divide
from models.nn.starting import CannotTrain, LabelledImage
from models.nn.training_speed import measure_training
from tests.models.nn.checkpoint_folder import PROMPT, write_transformers
from tests.models.nn.toy import CLASSES, NOW, examples, picture, toy


def image(i: int, *, defect: bool, product: str) -> LabelledImage:
    pixels = picture(i + 1000 * defect, defect=defect, level=120 if product == "old" else 70)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    return LabelledImage(data, CLASSES[defect].name, product, f"{product} {i // 4}")


IMAGES = [image(i, defect=d, product=p) for p in ("old", "fresh") for i in range(60) for d in (False, True)]


def test_no_group_is_in_two_sets_and_both_products_are_judged() -> None:
    sets = divide(IMAGES, limit=40, known="old", seed=3)
    parts = [sets.known, sets.new, sets.gate, sets.test_known, sets.test_new]
    groups = [{one.group for one in part} for part in parts]
    for i, one in enumerate(groups):
        assert all(one.isdisjoint(other) for other in groups[i + 1 :])
    assert sets.products == ("old", "fresh")
    assert {one.domain for one in sets.known} == {"old"}
    assert {one.domain for one in sets.gate} == {"old", "fresh"}
    assert len(sets.known) == 40
    assert sum(one.label == "good" for one in sets.known) == 20


@pytest.mark.parametrize(("products", "known"), [(("old",), None), (("old", "fresh"), "other")])
def test_two_products_are_needed(products: tuple[str, ...], known: str | None) -> None:
    with pytest.raises(CannotTrain, match="column domain"):
        divide([one for one in IMAGES if one.domain in products], limit=40, known=known, seed=0)


def test_a_rehearsal_learns_the_new_product_and_measures_every_step(tmp_path: Path) -> None:
    plan = Plan(tiny("1.7b"), None, device="cpu", images=40, steps=25, batch=16, batches=(2,), swaps=3, seed=1)
    sets = divide(IMAGES, limit=40, known="old", seed=1)
    found = Rehearsal(plan, sets, CLASSES, tmp_path / "base", now=NOW).run()
    assert found.pretrained == "none: random weights, seed 1"
    assert found.lesson["loss_last"] < found.lesson["loss_first"]
    assert found.parity["float32"].max_probability < 1e-3
    assert found.lesson["parity"] < 0.05
    assert (found.swaps.swaps, found.swaps.wrong) == (3, 0)
    assert found.judged["after"]["fresh"].loss < found.judged["before"]["fresh"].loss
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.speed[0].images_per_s > 0


def test_a_published_checkpoint_goes_the_same_way(tmp_path: Path) -> None:
    write_transformers(tmp_path / "published")
    source = Source(tmp_path / "published", PROMPT)
    plan = Plan(tiny("1.7b"), source, device="cpu", images=20, steps=5, batch=8, batches=(2,), swaps=0, seed=1)
    sets = divide(IMAGES, limit=20, known="old", seed=1)
    found = Rehearsal(plan, sets, CLASSES, tmp_path / "base", now=NOW).run()
    assert found.pretrained == "published (published checkpoint)"
    assert found.swaps is None
    assert found.parity["float32"].max_probability < 1e-3


def test_an_image_that_cannot_be_read_is_named_before_the_build(tmp_path: Path) -> None:
    plan = Plan(tiny("1.7b"), None, device="cpu", images=20, steps=5, batch=8, batches=(2,), swaps=0)
    sets = divide(IMAGES, limit=20, known="old", seed=1)
    sets.test_new[-1] = replace(sets.test_new[-1], data=b"none", source="the-bad-one.png")
    said: list[str] = []
    with pytest.raises(CannotTrain, match=r"the-bad-one\.png cannot be read"):
        Rehearsal(plan, sets, CLASSES, tmp_path / "base", now=NOW, say=said.append).run()
    assert said == []
    assert not (tmp_path / "base").exists()


def test_ranks_count_ties_as_one_half() -> None:
    truth = np.array([True, True, False, False])
    assert auroc(np.array([0.9, 0.8, 0.1, 0.2]), truth) == 1.0
    assert auroc(np.array([0.5, 0.1, 0.5, 0.1]), truth) == 0.5
    assert auroc(np.array([0.5, 0.9, 0.5, 0.1]), truth) == 0.875
    with pytest.raises(ValueError, match="good and defective"):
        auroc(np.array([0.1]), np.array([True]))


def test_a_speed_row_says_what_was_measured() -> None:
    made = toy()
    rows = measure_training(
        made.model, examples(made, range(8)), classes=2, batches=(2, 4), compiled=(False,),
        device=torch.device("cpu"), steps=2,
    )  # fmt: skip
    assert [(row.batch, row.compiled, row.note) for row in rows] == [(2, False, ""), (4, False, "")]
    assert all(row.images_per_s == pytest.approx(1e3 * row.batch / row.step_ms) for row in rows)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler about torch itself
def test_compiled_layers_learn_the_same_and_leave_plain_ones_behind() -> None:
    made, losses = toy(), []
    torch.compiler.set_stance("force_eager")  # the compiler itself is torch's business, and takes half a minute
    try:
        for compiled in (False, True):
            torch.manual_seed(0)
            trunk = with_lora(quantized_copy(made.model.trunk), made.model.config, dropout=0.0)
            layers = list(trunk.model.layers)
            head = nn.Linear(made.model.config.trunk.width, 2)
            training = LoraTraining(trunk, head, made.model.config, steps=3, settings=AdaptSettings(compiled=compiled))
            source = Batches(examples(made, range(8)), 2, torch.Generator().manual_seed(0))
            losses.append([training.step(*source.draw(4)).item() for _ in range(3)])
            training.finish()
            assert list(trunk.model.layers) == layers
    finally:
        torch.compiler.set_stance("default")
    assert losses[0] == losses[1]
