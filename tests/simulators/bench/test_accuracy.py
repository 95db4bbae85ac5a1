"""The accuracy bench on few hours: the plant is what it says, and a dishonest interval would miss a target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulators.accuracy import PlantHour, PlantSettings, plant_line
from simulators.bench.accuracy import Outcome, Share, judge, report, run, summarise, targets

SMALL = PlantSettings(parts=(700, 900), hours_per_line=3)


@pytest.fixture(scope="module")
def hours() -> list[PlantHour]:
    return [hour for seed in range(100, 106) for hour in plant_line(seed, settings=SMALL)]


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return run([101, 102], lines=8, settings=SMALL)


def test_a_line_repeats_itself_and_another_seed_is_another_line() -> None:
    first, again, other = ([hour.truth for hour in plant_line(seed, settings=SMALL)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_recorded_probabilities_are_the_true_ones(hours: list[PlantHour]) -> None:
    """Horvitz and Thompson: the weights of what was labelled add up to the parts, under eviction too."""
    shares = [(1 / hour.pi[hour.labelled]).sum() / len(hour.ok) for hour in hours]
    assert np.mean(shares) == pytest.approx(1.0, abs=0.15)
    assert any(np.unique(hour.pi[hour.uploaded]).size > 20 for hour in hours)


def test_the_budget_holds_and_hard_parts_are_preferred(hours: list[PlantHour]) -> None:
    assert np.mean([hour.uploaded.mean() for hour in hours]) < 0.32
    assert np.mean([(~hour.ok)[hour.uploaded].mean() for hour in hours]) > np.mean(
        [(~hour.ok).mean() for hour in hours]
    )


def test_reviewers_err_as_often_as_said() -> None:
    hours = list(plant_line(7, settings=replace(SMALL, mistake_rate=0.3, hours_per_line=6)))
    wrong = np.concatenate([(hour.says_defect != hour.defect)[hour.labelled] for hour in hours])
    assert wrong.mean() == pytest.approx(0.3, abs=0.1)


def test_few_labels_give_an_outcome_without_figures() -> None:
    settings = PlantSettings(parts=(120, 121), hours_per_line=2)
    outcomes = [judge(hour, np.random.default_rng(0), settings=settings) for hour in plant_line(3, settings=settings)]
    assert [one.accuracy for one in outcomes] == [None, None]
    overall = summarise(outcomes)
    assert (overall.hours, overall.estimated, overall.not_enough_labels) == (2, 0, 1.0)
    assert not all(goal.ok for goal in targets(overall))


def test_the_figures_of_a_small_run_are_plausible(outcomes: list[Outcome]) -> None:
    *regimes, overall = report(outcomes)
    assert sum(one.hours for one in regimes) == overall.hours == 48
    assert overall.estimated > 40
    assert overall.coverage >= 0.85
    assert overall.bias_naive < -0.03
    assert abs(overall.bias) < 0.03
    missed = [goal.name for goal in targets(overall) if not goal.ok]
    assert "hours" in missed, "48 hours are no proof"


def test_processes_do_not_change_the_figures(outcomes: list[Outcome]) -> None:
    again = run([101, 102], lines=8, settings=SMALL, processes=2)
    assert [repr(one) for one in again] == [repr(one) for one in outcomes], "as text, where nan is equal to nan"


def test_an_interval_that_is_too_narrow_or_too_wide_misses_its_target(outcomes: list[Outcome]) -> None:
    def stretched(share: Share | None, factor: float) -> Share | None:
        if share is None:
            return None
        half = factor * (share.high - share.low) / 2
        return replace(share, low=share.value - half, high=share.value + half)

    def missed(factor: float) -> set[str]:
        changed = [replace(one, accuracy=stretched(one.accuracy, factor)) for one in outcomes]
        return {goal.name for goal in targets(summarise(changed)) if not goal.ok}

    assert "coverage" in missed(0.3)
    assert {"coverage", "width"} <= missed(3.0)
