"""Calibration and thresholds on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from models.runtime.calibrate import fit_calibration, fit_domain_shift, fit_thresholds
from models.runtime.heads import softmax
from models.runtime.prototypes import find_prototypes


def sample(n: int, *, share: float, slope: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from a logistic model; logits that are `slope` times too steep and balanced."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, n)
    prior = np.log(share / (1 - share))
    labels = (rng.random(n) < 1 / (1 + np.exp(-(z + prior)))).astype(np.int64)
    return np.stack([-z * slope / 2, z * slope / 2], axis=1).astype(np.float32), labels


def test_it_undoes_a_slope_and_a_class_balance() -> None:
    logits, labels = sample(20_000, share=0.2, slope=3.0)
    found = fit_calibration(logits, labels)
    assert found.temperature == pytest.approx(3.0, rel=0.08)
    p = softmax((logits + found.shift) / np.float32(found.temperature))[:, 1]
    for low in np.arange(0, 1, 0.2):
        inside = (p >= low) & (p < low + 0.2)
        if inside.sum() > 200:
            assert p[inside].mean() == pytest.approx(labels[inside].mean(), abs=0.04)


@pytest.mark.parametrize("labels", [np.zeros(5, dtype=np.int64), np.ones(5, dtype=np.int64)])
def test_a_few_one_sided_labels_do_not_run_away(labels: np.ndarray) -> None:
    found = fit_calibration(np.tile(np.array([[3.0, -3.0]], dtype=np.float32), (5, 1)), labels)
    assert 0.05 <= found.temperature <= 20
    assert np.isfinite(found.shift).all()


def test_thresholds_are_ordered_and_leave_the_share_asked_for_to_a_person() -> None:
    rng = np.random.default_rng(0)
    defect = rng.random(4000) < 0.3
    scores = np.clip(rng.normal(0.3 + 0.3 * defect, 0.15), 0, 1).astype(np.float32)
    found = fit_thresholds(scores, defect, unsure_share=0.1)
    assert found.pass_below <= found.call_at <= found.reject_above
    unsure = ((scores >= found.pass_below) & (scores < found.reject_above)).mean()
    assert unsure == pytest.approx(0.1, abs=0.01)
    assert found.call_at == pytest.approx(defect.mean())


def test_costs_move_the_cut() -> None:
    scores, defect = np.linspace(0, 1, 100, dtype=np.float32), np.arange(100) > 60
    careful = fit_thresholds(scores, defect, escape_cost=9, overkill_cost=1)
    assert careful.call_at == pytest.approx(0.1)


def test_scores_on_one_side_only_are_no_fault() -> None:
    found = fit_thresholds(np.full(10, 0.9, dtype=np.float32), np.ones(10, dtype=bool))
    assert found.pass_below <= found.call_at <= found.reject_above


def test_prototypes_are_unit_rows_of_every_class() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (50, 6)).astype(np.float32)
    labels = np.array([0] * 45 + [1] * 5)
    found = find_prototypes(rows, labels, per_class=8, seed=0)
    assert found.shape == (13, 6)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.array_equal(found, find_prototypes(rows, labels, per_class=8, seed=0))


def test_every_domain_gets_its_own_operating_point() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 800)
    domain = rng.integers(0, 2, 800)
    embedding = rng.normal(0, 1, (800, 6)).astype(np.float32)
    embedding[:, 0] += 2.0 * labels + 3.0 * domain  # the second product looks defective altogether
    embedding[:, 1] += 4.0 * domain
    weight = np.array([[-0.5, 0, 0, 0, 0, 0], [0.5, 0, 0, 0, 0, 0]], dtype=np.float32)
    names = ["mono" if d == 0 else "poly" for d in domain]

    def right(w: np.ndarray, b: np.ndarray) -> list[float]:
        logits = embedding @ w.T + b
        found = fit_calibration(logits, labels)
        called = (logits + found.shift).argmax(axis=1)
        return [float((called == labels)[domain == d].mean()) for d in (0, 1)]

    shift = fit_domain_shift(embedding, embedding @ weight.T, labels, names)
    assert shift is not None
    before, after = right(weight, np.zeros(2)), right(weight + shift.weight, shift.bias)
    assert min(before) < 0.75
    assert min(after) > 0.77  # 0.84 is what two unit normals two apart allow


@pytest.mark.parametrize("names", [["mono"] * 100, [None] * 100, ["mono"] * 95 + ["poly"] * 5])
def test_one_domain_needs_no_shift(names: list[str | None]) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    embedding = rng.normal(0, 1, (100, 3)).astype(np.float32)
    assert fit_domain_shift(embedding, embedding[:, :2], labels, names) is None
