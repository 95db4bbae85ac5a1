"""Estimators: unbiased, covering, and sane where there is little or nothing to go by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cloud.accuracy.estimators import (
    ALLOWED_MISTAKES,
    MIN_LABELS,
    Estimate,
    Labelled,
    Reviewer,
    Totals,
    difference,
    escape,
    escaped,
    hajek,
    naive,
    overkill,
    overkilled,
)

ROUNDS = 400


class Population:
    """2,000 parts of which hard ones are often wrong and ten times as likely to be drawn."""

    def __init__(self, seed: int, *, n: int = 2000, informative: bool = True) -> None:
        self.rng = np.random.default_rng(seed)
        self.n = n
        hard = self.rng.random(n) < 0.2
        right = np.where(hard, 0.6, 0.98)
        self.ok = self.rng.random(n) < right
        self.g = right if informative else self.rng.uniform(0.5, 1.0, n)
        self.defect = self.rng.random(n) < 0.15
        self.called = self.defect == self.ok
        self.passed = ~self.called & ~hard
        self.rejected = self.called & ~hard
        self.pi = np.where(hard, 0.15, 0.015)
        self.totals = Totals(n, float(self.g.sum()))
        self.truth = float(self.ok.mean())
        self.escape = float(self.passed[self.defect].mean())
        self.overkill = float(self.rejected[~self.defect].mean())

    def draw(self, *, mistakes: float = 0.0) -> Labelled:
        taken = self.rng.random(self.n) < self.pi
        wrong = self.rng.random(self.n) < mistakes
        whole = Labelled(
            called_defect=self.called,
            says_defect=self.defect != wrong,
            g=self.g,
            pi=self.pi,
            passed=self.passed,
            rejected=self.rejected,
            judged=np.ones(self.n, dtype=bool),
        )
        return whole.only(taken)


def sample(ok: list[bool], *, pi: float = 0.1, g: float = 0.9) -> Labelled:
    n = len(ok)
    says = np.array([not value for value in ok], dtype=bool)
    flat = np.zeros(n, dtype=bool)
    return Labelled(flat, says, np.full(n, g), np.full(n, pi), ~flat, flat, ~flat)


def certain(found: Estimate | None) -> Estimate:
    assert found is not None
    return found


def test_the_estimates_are_unbiased_where_the_plain_mean_is_far_off() -> None:
    plant = Population(1)
    ours, theirs, plain = [], [], []
    for _ in range(ROUNDS):
        drawn = plant.draw()
        ours.append(certain(difference(drawn, plant.totals)).value)
        theirs.append(certain(hajek(drawn)).value)
        plain.append(naive(drawn))
    assert np.mean(ours) == pytest.approx(plant.truth, abs=0.005)
    assert np.mean(theirs) == pytest.approx(plant.truth, abs=0.005)
    assert np.mean(plain) < plant.truth - 0.1
    assert np.std(ours) < np.std(theirs), "g known for all parts must help"


def test_a_worthless_g_costs_next_to_nothing() -> None:
    plant = Population(2, informative=False)
    pairs = [(difference(drawn, plant.totals), hajek(drawn)) for drawn in (plant.draw() for _ in range(ROUNDS))]
    assert np.mean([certain(ours).value for ours, _ in pairs]) == pytest.approx(plant.truth, abs=0.006)
    spread = np.std([certain(ours).value for ours, _ in pairs])
    assert spread < 1.1 * np.std([certain(theirs).value for _, theirs in pairs])


@pytest.mark.parametrize("mistakes", [0.0, 0.02, 0.05])
def test_the_interval_covers_though_most_errors_that_count_are_never_drawn(mistakes: float) -> None:
    """Easy parts weigh 67 labels each and are wrong (or wrongly labelled) once in dozens: the estimate is skewed."""
    hits, errors = [], []
    for seed in range(200, 220):
        plant = Population(seed)
        for _ in range(20):
            gold = Reviewer(mistakes=int(plant.rng.binomial(300, mistakes)), gold=300)
            found = certain(difference(plant.draw(mistakes=mistakes), plant.totals, reviewer=gold))
            hits.append(found.low <= plant.truth <= found.high)
            errors.append(found.value - plant.truth)
    assert 0.92 <= np.mean(hits) <= 0.99
    assert np.mean(errors) == pytest.approx(0.0, abs=0.01)


def test_uncorrected_mistakes_would_bias_and_are_said_to_be_uncorrected() -> None:
    plant = Population(4)
    values = [certain(difference(plant.draw(mistakes=0.1), plant.totals)) for _ in range(ROUNDS)]
    assert not values[0].corrected
    assert np.mean([found.value for found in values]) < plant.truth - 0.05
    assert not Reviewer(mistakes=1, gold=19).corrects


@pytest.mark.parametrize("mistakes", [0.0, 0.02, ALLOWED_MISTAKES])
def test_reviewers_nobody_measured_are_allowed_for(mistakes: float) -> None:
    hits = []
    for seed in range(240, 260):
        plant = Population(seed)
        for _ in range(20):
            found = certain(difference(plant.draw(mistakes=mistakes), plant.totals))
            hits.append(found.low <= plant.truth <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.99


def test_the_allowance_is_on_the_side_away_from_one_half() -> None:
    plant = Population(5)
    drawn = plant.draw()
    exact = Reviewer(mistakes=0, gold=10**9)
    for sample, totals in (
        (drawn, plant.totals),
        (replace(drawn, says_defect=~drawn.says_defect, g=1 - drawn.g), Totals(plant.n, plant.n - plant.totals.sum_g)),
    ):
        known, unknown = certain(difference(sample, totals, reviewer=exact)), certain(difference(sample, totals))
        right = known.value > 0.5
        assert unknown.value == pytest.approx(known.value, abs=1e-6)
        near, far = ((known.low, unknown.low), (known.high, unknown.high))
        if not right:
            near, far = far, near
        assert near[0] == pytest.approx(near[1], abs=1e-3)
        assert abs(far[1] - known.value) > abs(far[0] - known.value) + 0.005


def test_escape_and_overkill_cover_and_are_nearly_unbiased_despite_mistakes() -> None:
    gold, missed, alarmed = Reviewer(mistakes=6, gold=300), [], []
    errors: list[float] = []
    for seed in range(220, 240):
        plant = Population(seed)
        for _ in range(20):
            drawn = plant.draw(mistakes=0.02)
            found = escape(drawn, reviewer=gold)
            if found is not None:
                missed.append(found.low <= plant.escape <= found.high)
            found = certain(overkill(drawn, reviewer=gold))
            alarmed.append(found.low <= plant.overkill <= found.high)
            errors.append(found.value - plant.overkill)
    assert len(missed) > 350
    assert np.mean(missed) >= 0.92
    assert np.mean(alarmed) >= 0.92
    assert np.mean(errors) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("mistakes", [0.0, 0.02])
def test_shares_of_all_parts_cover_though_they_are_next_to_nothing(mistakes: float) -> None:
    gold = Reviewer(mistakes=round(300 * mistakes), gold=300)
    slipped: list[bool] = []
    thrown: list[bool] = []
    errors: list[float] = []
    for seed in range(240, 260):
        plant = Population(seed)
        missed, alarmed = float((plant.passed & plant.defect).mean()), float((plant.rejected & ~plant.defect).mean())
        for _ in range(20):
            drawn = plant.draw(mistakes=mistakes)
            found = certain(escaped(drawn, reviewer=gold))
            slipped.append(found.low <= missed <= found.high)
            found = certain(overkilled(drawn, reviewer=gold))
            thrown.append(found.low <= alarmed <= found.high)
            errors.append(found.value - alarmed)
    assert np.mean(slipped) >= 0.92
    assert np.mean(thrown) >= 0.92
    assert np.mean(errors) == pytest.approx(0.0, abs=0.01)


def test_a_census_counts_the_parts_themselves() -> None:
    """10 defective parts of 50 passed, and 5 of the good ones were rejected."""
    says = np.arange(50) < 10
    rejected = np.arange(50) >= 45
    drawn = Labelled(rejected, says, np.full(50, 0.9), np.ones(50), ~rejected, rejected, np.ones(50, dtype=bool))
    assert certain(escaped(drawn)).value == pytest.approx(0.2)
    assert certain(overkilled(drawn)).value == pytest.approx(0.1)
    assert certain(escape(drawn)).value == 1.0
    assert certain(overkill(drawn)).value == pytest.approx(5 / 40)


def test_no_defective_part_in_sight_is_an_upper_bound_for_those_that_slipped_through() -> None:
    drawn = replace(sample([True] * 40), passed=np.ones(40, dtype=bool))
    assert escape(drawn) is None
    found = certain(escaped(drawn))
    assert (found.value, found.low) == (0.0, 0.0)
    assert 0 < found.high < 0.15


def test_mistakes_do_not_pass_for_escapes() -> None:
    """200 good parts that passed, 6 called defective by a reviewer who errs in 3 %: no escape is shown."""
    says = np.zeros(200, dtype=bool)
    says[:6] = True
    flat = np.zeros(200, dtype=bool)
    drawn = Labelled(flat, says, np.full(200, 0.9), np.full(200, 0.1), ~flat, flat, ~flat)
    assert certain(escape(drawn)).low > 0.3, "uncorrected, every such label is an escape"
    corrected = escape(drawn, reviewer=Reviewer(mistakes=9, gold=300))
    assert corrected is None or corrected.low == 0.0


@pytest.mark.parametrize("n", [0, 1, MIN_LABELS - 1])
def test_too_few_labels_give_no_figure(n: int) -> None:
    few = sample([True] * n)
    assert difference(few, Totals(1000, 900.0)) is None
    assert hajek(few) is None
    assert escape(few) is None
    assert overkill(few) is None
    assert naive(sample([])) is None


def test_no_totals_give_no_difference_estimate() -> None:
    assert difference(sample([True] * 30), Totals(0, 0.0)) is None


@pytest.mark.parametrize(("right", "value"), [(True, 1.0), (False, 0.0)])
def test_all_right_and_all_wrong_keep_an_honest_width(right: bool, value: float) -> None:
    for found in (
        certain(hajek(sample([right] * 30))),
        certain(difference(sample([right] * 30), Totals(300, 270.0))),
        certain(difference(sample([right] * 30), Totals(300, 270.0), reviewer=Reviewer(0, 50))),
    ):
        assert found.value == value
        assert found.low <= value <= found.high
        assert 0.05 < found.high - found.low < 0.25


def test_a_census_is_the_truth_itself() -> None:
    infallible = Reviewer(mistakes=0, gold=10**12)
    found = certain(hajek(sample([True] * 27 + [False] * 3, pi=1.0), reviewer=infallible))
    assert (found.value, found.low, found.high) == (pytest.approx(0.9), pytest.approx(0.9), pytest.approx(0.9))


def test_a_larger_share_of_the_period_labelled_is_a_narrower_interval() -> None:
    oks = [True] * 50 + [False] * 10
    widths = [
        certain(hajek(sample(oks, pi=pi))).high - certain(hajek(sample(oks, pi=pi))).low for pi in (0.01, 0.5, 0.9)
    ]
    assert widths[0] > widths[1] > widths[2] > 0


def test_equal_probabilities_and_a_flat_g_are_the_plain_mean() -> None:
    """One stratum: nothing to weight, nothing to regress on."""
    oks = [True] * 36 + [False] * 4
    found = certain(difference(sample(oks), Totals(400, 360.0)))
    assert found.value == pytest.approx(0.9)
    assert found.effective == pytest.approx(40 / 0.9, rel=0.1)


def test_one_heavy_label_weakens_the_estimate() -> None:
    drawn = sample([True] * 40 + [False] * 4, pi=0.3)
    heavy = replace(drawn, pi=np.where(np.arange(44) == 0, 0.003, drawn.pi))
    assert certain(hajek(heavy)).effective < 0.3 * certain(hajek(drawn)).effective


def test_unjudged_parts_count_for_escape_and_overkill_only() -> None:
    drawn = sample([True] * 40)
    half = replace(drawn, judged=np.arange(40) < 15)
    assert hajek(half) is None
    assert certain(overkill(half)).labels == 40


def test_mistakes_beyond_a_quarter_are_not_corrected_but_refused() -> None:
    assert Reviewer(mistakes=10, gold=50).reliable
    assert not Reviewer(mistakes=20, gold=50).reliable
    assert Reviewer(mistakes=5, gold=5).reliable, "too few gold items say nothing"


def test_no_mistake_on_gold_is_not_proof_of_none() -> None:
    oks = [True] * 90 + [False] * 10
    sure = certain(hajek(sample(oks), reviewer=Reviewer(0, 100_000)))
    unsure = certain(hajek(sample(oks), reviewer=Reviewer(0, 20)))
    assert sure.value == unsure.value
    assert unsure.high - unsure.low > sure.high - sure.low
