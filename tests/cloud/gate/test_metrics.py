from __future__ import annotations

import math

import numpy as np
import pytest

from cloud.gate.metrics import (
    Resampler,
    accuracy,
    auroc,
    balanced_accuracy,
    confusion,
    debiased_calibration_error2,
    escape_rate,
    macro_f1,
    overkill_rate,
    recalls,
)
from cloud.gate.paired import drop_is_evident, margin_p, mcnemar_exact, normal_cdf, power

TRUTH = np.array([0, 0, 0, 0, 1, 1, 2, 2])
CALLS = np.array([0, 0, 0, 1, 1, 0, 2, -1])


def test_counting_by_hand() -> None:
    assert confusion(TRUTH, CALLS, 3).tolist() == [[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
    assert recalls(TRUTH, CALLS, 3).tolist() == [0.75, 0.5, 0.5]
    assert accuracy(TRUTH, CALLS) == 5 / 8
    assert balanced_accuracy(TRUTH, CALLS, 3) == pytest.approx(1.75 / 3)
    assert macro_f1(TRUTH, CALLS, 3) == pytest.approx((6 / 8 + 2 / 4 + 2 / 3) / 3)


def test_a_class_without_images_says_nothing() -> None:
    assert math.isnan(recalls(TRUTH, CALLS, 4)[3])
    assert macro_f1(TRUTH, CALLS, 4) == macro_f1(TRUTH, CALLS, 3)
    assert math.isnan(macro_f1(TRUTH[:0], CALLS[:0], 3))


def test_auroc_counts_ties_half_and_matches_pairs() -> None:
    generator = np.random.Generator(np.random.PCG64(3))
    positive, scores = generator.random(60) < 0.4, np.round(generator.random(60), 1)
    ones, zeros = scores[positive], scores[~positive]
    pairs = ((ones[:, None] > zeros) + 0.5 * (ones[:, None] == zeros)).mean()
    assert auroc(positive, scores) == pytest.approx(pairs)
    assert math.isnan(auroc(np.array([True]), np.array([0.5])))


def test_escape_and_overkill_are_shares_of_their_own_kind() -> None:
    defect = np.array([True, True, False, False, False])
    assert escape_rate(defect, np.array([True, False, True, True, True])) == 0.5
    assert overkill_rate(defect, np.array([True, True, True, False, False])) == pytest.approx(1 / 3)
    assert math.isnan(escape_rate(np.array([False]), np.array([True])))


def test_calibration_error_has_no_bias_when_calibrated_and_finds_a_gap() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    fine, off = [], []
    for _ in range(200):
        confidence = generator.uniform(0.5, 1.0, 300)
        fine.append(debiased_calibration_error2(confidence, generator.random(300) < confidence))
        off.append(debiased_calibration_error2(confidence, generator.random(300) < confidence - 0.2))
    assert abs(np.mean(fine)) < 0.0004  # plain ECE would be about 0.008 squared
    assert np.sqrt(np.mean(off)) == pytest.approx(0.2, abs=0.01)


def test_bootstrap_draws_whole_groups() -> None:
    groups = ["a", "a", "b", "b", "b", None]
    for rows in Resampler(groups, np.zeros(6, dtype=np.int64), draws=50).rows():
        counts = np.bincount(rows, minlength=6)
        assert counts[0] == counts[1]
        assert counts[2] == counts[3] == counts[4]


def test_bootstrap_keeps_class_counts_and_repeats() -> None:
    strata = np.array([0] * 9 + [1])
    first, second = (Resampler([None] * 10, strata, seed=4, draws=20).rows() for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert all((strata[rows] == 1).sum() == 1 for rows in first)


def test_mcnemar_against_hand() -> None:
    assert mcnemar_exact(5, 0) == 1 / 32
    assert mcnemar_exact(3, 1) == pytest.approx(5 / 16)
    assert mcnemar_exact(0, 0) == 1.0


def test_tangos_score_is_mcnemars_without_a_margin() -> None:
    assert margin_p(15, 5, 100, 0.0) == pytest.approx(1 - normal_cdf(10 / math.sqrt(20)))


def test_margin_test_holds_its_level_at_the_border() -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    draws = generator.multinomial(200, [0.05, 0.03, 0.92], size=2000)  # a drop of exactly 2 points
    refused = np.mean([margin_p(int(b), int(c), 200, 0.02) < 0.05 for b, c, _ in draws])
    assert 0.02 < refused < 0.07


def test_a_drop_needs_evidence() -> None:
    assert not drop_is_evident(3, 0, 12, 0.02)
    assert not drop_is_evident(4, 2, 100, 0.02)
    assert drop_is_evident(12, 1, 100, 0.02)


def test_power_grows_with_the_drop() -> None:
    curve = [power(d, margin=0.02, error=0.01) for d in (0.0, 0.02, 0.05)]
    assert curve == sorted(curve)
    assert curve[1] == pytest.approx(0.5)
    assert power(0.01, margin=0.02, error=0.0) == 0.0
