"""The final table's arithmetic on made-up models whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from simulators.demo.evaluate import (
    Judged,
    always_pass,
    at_threshold,
    balanced,
    best_threshold,
    difference,
    draws,
    measures,
    recovered,
)

DEFECT = np.array([True] * 100 + [False] * 200)


def model(defect_scores: float, good_scores: float, *, noise: float = 0.0, seed: int = 0) -> Judged:
    """A model whose scores lie around the two values, cut at one half."""
    rng = np.random.default_rng(seed)
    scores = np.where(DEFECT, defect_scores, good_scores) + noise * rng.standard_normal(len(DEFECT))
    return at_threshold(Judged(DEFECT, DEFECT, scores, DEFECT, DEFECT), 0.5)


def test_a_perfect_model() -> None:
    found = measures(model(0.9, 0.1))
    assert (found.balanced_accuracy, found.auroc, found.escape, found.overkill, found.unsure) == (
        1.0,
        1.0,
        0.0,
        0.0,
        0.0,
    )


def test_always_pass_is_the_worst_honest_rival() -> None:
    found = measures(always_pass(DEFECT))
    assert (found.balanced_accuracy, found.auroc, found.escape, found.overkill) == (0.5, 0.5, 1.0, 0.0)


def test_unsure_is_neither_an_escape_nor_an_overkill() -> None:
    nothing = np.zeros(len(DEFECT), dtype=bool)
    found = measures(Judged(DEFECT, DEFECT, np.full(len(DEFECT), 0.5), nothing, nothing))
    assert (found.escape, found.overkill, found.unsure) == (0.0, 0.0, 1.0)


def test_a_shifted_model_is_mended_by_its_threshold_alone() -> None:
    shifted = model(0.4, 0.2, noise=0.02)
    assert balanced(shifted) == pytest.approx(0.5, abs=0.01)
    assert balanced(at_threshold(shifted, best_threshold(shifted))) > 0.99
    assert measures(shifted).auroc > 0.99


def test_a_threshold_cannot_mend_a_model_that_knows_nothing() -> None:
    blind = model(0.5, 0.5, noise=0.1)
    assert balanced(at_threshold(blind, best_threshold(blind))) < 0.6


def test_the_same_model_differs_from_itself_by_exactly_nothing() -> None:
    one = model(0.6, 0.4, noise=0.2)
    found = difference(one, one, seed=1, count=200)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_real_gain_has_an_interval_above_zero_and_noise_has_not() -> None:
    good, rival, twin = model(0.7, 0.3, noise=0.15), model(0.5, 0.5, noise=0.15), model(0.7, 0.3, noise=0.15, seed=5)
    gain = difference(good, rival, seed=1, count=500)
    assert 0 < gain.low < gain.value < gain.high
    nothing = difference(good, twin, seed=1, count=500)
    assert nothing.low <= 0 <= nothing.high


def test_draws_keep_the_classes_as_they_are() -> None:
    rows = draws(DEFECT, seed=3, count=50)
    assert rows.shape == (50, 300)
    assert (DEFECT[rows].sum(axis=1) == 100).all()
    assert (draws(DEFECT, seed=3, count=50) == rows).all()
    assert (draws(DEFECT, seed=4, count=50) != rows).any()


@pytest.mark.parametrize(
    ("loop", "collapsed", "joint", "share"),
    [(0.8, 0.5, 0.85, 0.857), (0.85, 0.5, 0.85, 1.0), (0.5, 0.5, 0.85, 0.0), (0.4, 0.5, 0.85, -0.286)],
)
def test_the_share_of_a_gap(loop: float, collapsed: float, joint: float, share: float) -> None:
    assert recovered(loop, collapsed, joint) == pytest.approx(share, abs=0.001)


def test_no_gap_is_no_share() -> None:
    assert recovered(0.8, 0.85, 0.85) is None
    assert recovered(0.8, 0.9, 0.85) is None
