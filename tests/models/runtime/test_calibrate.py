"""Calibration and prototypes on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from models.runtime.calibrate import fit_calibration
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


def test_prototypes_are_unit_rows_of_every_class() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (50, 6)).astype(np.float32)
    labels = np.array([0] * 45 + [1] * 5)
    found = find_prototypes(rows, labels, per_class=8, seed=0)
    assert found.shape == (13, 6)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.array_equal(found, find_prototypes(rows, labels, per_class=8, seed=0))
