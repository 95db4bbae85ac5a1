"""Cuts and the person's share, on scores whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from models.runtime.operating_point import align_domains, balance_point, cost_ratio, defect_log_odds, fit_thresholds

DEFECTS = np.array([False, True])


def scored(n: int = 4000, *, seed: int = 0, gap: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    defect = rng.random(n) < 0.3
    return np.clip(rng.normal(0.3 + gap * defect, 0.15), 0, 1).astype(np.float32), defect


def rates(scores: np.ndarray, defect: np.ndarray, cut: float) -> tuple[float, float]:
    """Share of defects missed, share of good parts called defective."""
    return float((scores[defect] < cut).mean()), float((scores[~defect] >= cut).mean())


def test_without_costs_both_kinds_of_mistake_are_as_frequent() -> None:
    scores, defect = scored()
    missed, alarms = rates(scores, defect, balance_point(scores, defect))
    assert missed == pytest.approx(alarms, abs=0.005)


@pytest.mark.parametrize("ratio", [0.25, 4.0])
def test_costs_move_the_cut_until_both_kinds_cost_the_same(ratio: float) -> None:
    scores, defect = scored()
    missed, alarms = rates(scores, defect, balance_point(scores, defect, ratio=ratio))
    assert ratio * missed == pytest.approx(alarms, abs=0.01)


def test_a_better_model_makes_fewer_mistakes_of_both_kinds() -> None:
    worse = rates(*scored(gap=0.1), balance_point(*scored(gap=0.1)))
    better = rates(*scored(gap=0.2), balance_point(*scored(gap=0.2)))
    assert better[0] < worse[0]
    assert better[1] < worse[1]


def test_the_ratio_is_what_all_mistakes_of_each_kind_would_cost() -> None:
    defect = np.array([True] * 2 + [False] * 8)
    assert cost_ratio(defect, escape_cost=40, overkill_cost=5) == pytest.approx(2.0)
    assert cost_ratio(defect, escape_cost=0, overkill_cost=5) == 1.0


@pytest.mark.parametrize("defect", [np.ones(5, dtype=bool), np.zeros(5, dtype=bool)])
def test_images_of_one_kind_give_no_cut(defect: np.ndarray) -> None:
    with pytest.raises(ValueError, match="good and defective"):
        balance_point(np.linspace(0, 1, 5), defect)


def test_equal_scores_are_no_fault() -> None:
    found = fit_thresholds(np.full(10, 0.5, dtype=np.float32), np.arange(10) > 5)
    assert found.pass_below <= found.call_at <= found.reject_above


def test_thresholds_are_ordered_and_leave_the_share_asked_for_to_a_person() -> None:
    scores, defect = scored()
    found = fit_thresholds(scores, defect, unsure_share=0.1)
    assert found.pass_below <= found.call_at <= found.reject_above
    unsure = ((scores >= found.pass_below) & (scores < found.reject_above)).mean()
    assert unsure == pytest.approx(0.1, abs=0.01)


def test_log_odds_gather_the_classes_of_each_side() -> None:
    logits = np.log(np.array([[0.2, 0.3, 0.5]]))
    assert defect_log_odds(logits, np.array([False, True, True]))[0] == pytest.approx(np.log(0.8 / 0.2))


def two_products(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The second product looks defective altogether."""
    rng = np.random.default_rng(seed)
    labels, product = rng.integers(0, 2, 800), rng.integers(0, 2, 800)
    embedding = rng.normal(0, 1, (800, 6)).astype(np.float32)
    embedding[:, 0] += 2.0 * labels + 3.0 * product
    embedding[:, 1] += 4.0 * product
    weight = np.array([[-0.5, 0, 0, 0, 0, 0], [0.5, 0, 0, 0, 0, 0]], dtype=np.float32)
    return embedding, labels, product, weight


def test_every_domain_is_cut_at_its_own_balance_point() -> None:
    embedding, labels, product, weight = two_products()
    logits = embedding @ weight.T
    names = ["mono" if p == 0 else "poly" for p in product]

    def right(logits: np.ndarray) -> list[float]:
        scores = defect_log_odds(logits, DEFECTS)
        called = scores >= balance_point(scores, labels == 1)
        return [float((called == (labels == 1))[product == p].mean()) for p in (0, 1)]

    shift = align_domains(embedding, logits, labels, names, defects=DEFECTS, ratio=1.0)
    assert shift is not None
    assert min(right(logits)) < 0.75
    assert (
        min(right(logits + embedding @ shift.weight.T + shift.bias)) > 0.78
    )  # 0.84 is the best two such normals allow


@pytest.mark.parametrize("names", [["mono"] * 800, [None] * 800, ["mono"] * 795 + ["poly"] * 5])
def test_one_domain_needs_no_shift(names: list[str | None]) -> None:
    embedding, labels, _, weight = two_products()
    assert align_domains(embedding, embedding @ weight.T, labels, names, defects=DEFECTS, ratio=1.0) is None
