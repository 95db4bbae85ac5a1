"""Training on toy images: losses fall, the same seed learns the same, releases run as they were packed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.contracts.model_manifest import Lineage
from models.nn.adapt import AdaptSettings, adapt
from models.nn.heads import class_balance, embed, fit_head, refit_head
from models.nn.lora import quantized_copy
from models.nn.release import Costs, Identity, Lesson, ReleaseSettings, make_release
from models.runtime.adapter import read_adapter
from models.runtime.golden import read_golden
from models.runtime.inspector import check_golden, load_model
from tests.models.nn.toy import CLASSES, NOW, examples, toy

FAST = AdaptSettings(batch_new=8, batch_memory=8, min_steps=25, max_steps=25, rate=3e-3, threads=1)
LINEAGE = Lineage(training_run="train/toy/1", labels=24, code_version="test", seed=1, trained_at=NOW)


def lesson(start: dict[str, np.ndarray] | None = None) -> Lesson:
    made = toy()
    return Lesson(
        new=examples(made, range(24), level=70),
        memory=examples(made, range(100, 140)),
        validation=examples(made, range(200, 240), level=70),
        golden=read_golden(made.built.files["golden.safetensors"]),
        classes=CLASSES,
        costs=Costs(),
        start=start,
    )


def identity(release: int = 2) -> Identity:
    return Identity(toy().built.manifest.digest(), "toy", release, LINEAGE, NOW)


def learn(seed: int = 1, start: dict[str, np.ndarray] | None = None):
    given = lesson(start)
    return adapt(toy().model, new=given.new, memory=given.memory, classes=2, start=start, settings=FAST, seed=seed)


def test_the_loss_falls_and_the_base_stays_as_it_was() -> None:
    before = {name: tensor.clone() for name, tensor in toy().model.state_dict().items()}
    adapted = learn()
    assert np.mean(adapted.losses[-5:]) < np.mean(adapted.losses[:5])
    after = toy().model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_seed_learns_the_same() -> None:
    one, two, other = learn(), learn(), learn(seed=2)
    assert all(np.array_equal(one.lora[name], two.lora[name]) for name in one.lora)
    assert any(not np.array_equal(one.lora[name], other.lora[name]) for name in one.lora)


def test_a_round_continues_the_incumbents_adapter() -> None:
    first = learn()
    still = adapt(
        toy().model, new=lesson().new, memory=lesson().memory, classes=2, start=first.lora,
        settings=replace(FAST, rate=1e-9, head_rate=1e-9), seed=1,
    )  # fmt: skip
    for name, array in first.lora.items():
        assert np.allclose(still.lora[name], array, atol=1e-4), name


def test_steps_follow_the_labels_within_bounds() -> None:
    settings = AdaptSettings(batch_new=16, epochs=3, min_steps=30, max_steps=200)
    assert [settings.steps(n) for n in (1, 160, 400, 100_000)] == [30, 30, 75, 200]


def test_class_balance_gives_every_class_the_same_total() -> None:
    labels = torch.tensor([0] * 9 + [1])
    weights = class_balance(labels, 3)
    assert weights.mean().item() == pytest.approx(1.0)
    assert weights[labels == 0].sum().item() == pytest.approx(weights[labels == 1].sum().item())


def test_the_refitted_head_separates_what_can_be_separated() -> None:
    torch.manual_seed(0)
    labels = torch.arange(60) % 2
    embedding = torch.randn(60, 5) * 0.1 + labels[:, None] * 2.0 + 40
    weight, bias = fit_head(embedding, labels, torch.ones(60), classes=2, decay=1e-3)
    assert ((embedding @ weight.T + bias).argmax(1) == labels).all()


def test_a_class_without_labels_starts_as_its_word_and_the_others_do_not_hear_theirs() -> None:
    made = toy()
    sets = [examples(made, range(24)), examples(made, range(24, 48))]
    frozen = quantized_copy(made.model.trunk)
    embedding = embed(frozen, sets[0].tokens[:, 0])
    apart = embedding[sets[0].labels == 1].mean(0) - embedding[sets[0].labels == 0].mean(0)
    words = torch.nn.functional.normalize(torch.stack([-apart, apart, torch.randn(len(apart))]), dim=1)
    with_words, _ = refit_head(frozen, sets, [0.5, 0.5], classes=3, decay=0.03, words=words)
    without, _ = refit_head(frozen, sets, [0.5, 0.5], classes=3, decay=0.03)
    toward = torch.cosine_similarity(with_words[2] - without[2], words[2], dim=0)
    assert toward > 0.9
    two, _ = refit_head(frozen, sets, [0.5, 0.5], classes=2, decay=0.03, words=words[:2])
    plain, _ = refit_head(frozen, sets, [0.5, 0.5], classes=2, decay=0.03)
    assert torch.equal(two, plain)


def test_a_release_runs_on_the_runtime_as_it_was_packed() -> None:
    made = make_release(toy().base, toy().model, lesson(), identity(), settings=ReleaseSettings(adapt=FAST), seed=3)
    manifest, blobs = made.packed.manifest, made.packed.blobs
    model = load_model(toy().base, manifest, base_sha=manifest.base, blobs=blobs, release=7)
    assert check_golden(model, lesson().golden) < 0.01
    assert manifest.golden.min_base_distance > 0
    assert made.metrics["parity_agreement"] >= 0.95
    assert made.metrics["parity"] < 0.05
    assert made.metrics["bytes"] < 2_000_000
    judged = lesson().validation
    tokens = judged.tokens[:, 0].astype(np.float32)
    scores = model.head.defect_scores(model.head.probabilities(toy().base.embed(tokens, model.lora).embedding))
    assert ((scores >= manifest.thresholds.call_at) == (judged.labels == 1)).mean() >= 0.9


def test_the_second_release_starts_from_the_first_and_may_mix_with_it() -> None:
    settings = ReleaseSettings(adapt=FAST, shares=(1.0, 0.5))
    first = make_release(toy().base, toy().model, lesson(), identity(), settings=settings, seed=3)
    blob = first.packed.blobs[first.packed.manifest.adapter.blob.sha256]
    start = read_adapter(blob, toy().built.manifest.lora)
    second = make_release(toy().base, toy().model, lesson(start), identity(3), settings=settings, seed=4)
    assert second.packed.manifest.adapter.blob.sha256 != first.packed.manifest.adapter.blob.sha256
