"""Picking cuts within a risk, and what they cost on other images."""

from __future__ import annotations

import numpy as np
import pytest

from models.contracts.model_manifest import CascadeCuts, Thresholds
from models.contracts.sample import Verdict
from models.runtime.cascade_fit import (
    RiskLimits,
    Scored,
    contradicted,
    cost,
    curve,
    cuts_for,
    least_images,
    pick,
    verdict_of,
)
from models.runtime.intervals import upper_bound


def drawn(n: int, *, seed: int, skill: float = 2.0, big_errs: float = 0.02) -> Scored:
    """A gate whose log-odds are off by noise, and a big model that errs on `big_errs`."""
    rng = np.random.default_rng(seed)
    defect = rng.random(n) < 0.4
    gate = 1 / (1 + np.exp(-(skill * np.where(defect, 1, -1) + rng.normal(0, 1.2, n))))
    right = rng.random(n) >= big_errs
    big = [Verdict.REJECT if d == r else Verdict.PASS for d, r in zip(defect, right, strict=True)]
    return Scored(gate, big, defect)


def test_the_picked_cuts_keep_the_bound_and_one_more_image_would_break_it() -> None:
    scored, limits = drawn(2000, seed=1), RiskLimits(0.02, 0.03)
    cuts = pick(scored, limits, call_at=0.5)
    found = cost(scored, cuts)
    goods = found.images - found.defects
    assert upper_bound(found.added_escapes, found.defects) <= 0.02 < upper_bound(found.added_escapes + 1, found.defects)
    assert upper_bound(found.added_overkills, goods) <= 0.03 < upper_bound(found.added_overkills + 1, goods)
    assert 0 < found.escalation < 0.5


def test_a_tighter_limit_escalates_more() -> None:
    scored = drawn(3000, seed=2)
    shares = [cost(scored, pick(scored, RiskLimits(r, r), call_at=0.5)).escalation for r in (0.005, 0.01, 0.03, 0.1)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]


def test_over_many_draws_the_promised_risk_is_kept() -> None:
    """The true added escape of the picked cut, on 20,000 fresh images, exceeds the limit in at most 5 % of draws."""
    fresh, limit = drawn(20_000, seed=999), 0.03
    beyond = sum(
        cost(fresh, pick(drawn(600, seed=s), RiskLimits(limit, 0.5), call_at=0.5)).added_escape.rate > limit
        for s in range(40)
    )
    assert beyond <= 5  # 2 expected at most, binomial 98 % quantile


def test_too_few_images_certify_nothing() -> None:
    scored = drawn(60, seed=3)
    assert pick(scored, RiskLimits(0.01, 0.01), call_at=0.5) == CascadeCuts()
    assert least_images(0.01) == 299
    one_side = pick(scored, RiskLimits(0.01, 0.5), call_at=0.5)
    assert one_side.certain_pass_below is None
    assert one_side.certain_reject_above is not None


def test_a_gate_that_knows_nothing_ends_almost_nothing() -> None:
    scored = drawn(1000, seed=4, skill=0.0)
    assert cost(scored, pick(scored, RiskLimits(0.02, 0.02), call_at=0.5)).escalation > 0.9


def test_cuts_never_cross_the_call() -> None:
    scored = drawn(800, seed=5, skill=9.0, big_errs=0.0)
    cuts = pick(scored, RiskLimits(0.2, 0.2), call_at=0.5)
    assert (cuts.certain_pass_below, cuts.certain_reject_above) == (0.5, 0.5)
    assert cost(scored, cuts).escalation == 0.0


def test_unsure_of_the_big_model_is_neither_escape_nor_overkill_until_the_gate_ends_it() -> None:
    scored = Scored(np.array([0.0, 0.0, 1.0, np.nan]), [Verdict.UNSURE] * 4, np.array([True, False, False, True]))
    alone = cost(scored, CascadeCuts())
    assert (alone.escape.rate, alone.overkill.rate, alone.escalation) == (0.0, 0.0, 1.0)
    gated = cost(scored, CascadeCuts(certain_pass_below=0.1, certain_reject_above=0.9))
    assert (gated.added_escapes, gated.added_overkills, gated.escalation) == (1, 1, 0.25)


def test_what_the_gate_saves_is_counted_apart() -> None:
    scored = Scored(np.array([0.99, 0.01]), [Verdict.PASS, Verdict.REJECT], np.array([True, False]))
    found = cost(scored, CascadeCuts(certain_pass_below=0.1, certain_reject_above=0.9))
    assert (found.saved_escapes, found.saved_overkills, found.added_escapes, found.added_overkills) == (1, 1, 0, 0)
    assert (found.escape.rate, found.overkill.rate) == (0.0, 0.0)


def test_other_images_can_contradict_a_limit() -> None:
    bad = cost(drawn(2000, seed=6, skill=0.5), CascadeCuts(certain_pass_below=0.5, certain_reject_above=0.5))
    assert contradicted(bad, RiskLimits(0.02, 0.02))
    assert not contradicted(bad, RiskLimits(0.9, 0.9))


def test_the_curve_meets_its_shares_on_new_images() -> None:
    shares = [0.0, 0.1, 0.3, 1.0]
    rows = curve(drawn(4000, seed=7), drawn(4000, seed=8), call_at=0.5, shares=shares)
    assert [row.escalation for row in rows] == pytest.approx(shares, abs=0.03)
    assert [row.added_escapes for row in rows] == sorted((row.added_escapes for row in rows), reverse=True)
    assert rows[-1].added_escapes == rows[-1].added_overkills == 0


def test_scores_of_zero_and_one_have_cuts_too() -> None:
    cuts = cuts_for(np.array([0.0, 1.0, 0.5, 0.5]), escalation=0.5, call_at=0.5)
    assert 0.0 < cuts.certain_pass_below <= 0.5 <= cuts.certain_reject_above <= 1.0
    assert cuts_for(np.array([np.nan]), escalation=0.1, call_at=0.5) == CascadeCuts()


def test_a_verdict_without_a_score_is_unsure() -> None:
    thresholds = Thresholds(pass_below=0.4, reject_above=0.6, call_at=0.5)
    assert [verdict_of(s, thresholds) for s in (None, float("nan"), 0.39, 0.5, 0.6)] == [
        Verdict.UNSURE, Verdict.UNSURE, Verdict.PASS, Verdict.UNSURE, Verdict.REJECT,
    ]  # fmt: skip


def test_sets_of_one_kind_and_torn_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="good and defective"):
        pick(Scored(np.array([0.1]), [Verdict.PASS], np.array([False])), RiskLimits(0.1, 0.1), call_at=0.5)
    with pytest.raises(ValueError, match="same images"):
        Scored(np.array([0.1]), [], np.array([False]))
