from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.selector.memory import LEAST_SEEN
from edge_agent.selector.pace import ENVELOPE_BYTES, Pace
from edge_agent.selector.rule import SMALLEST, Candidate, Kept, Selector, Skip, Skipped, coin
from edge_agent.selector.terms import Terms
from models.contracts.ids import uuid7
from models.contracts.sample import Stratum

HOUR = 3600
START = 1_700_000 * 1.0 * HOUR


def selector(budget: int, *, seed: int = 0, audit: float = 0.3, pi_min: float = 0.02) -> Selector:
    return Selector(pace=Pace(bytes_per_hour=budget, hour_s=HOUR), audit_share=audit, pi_min=pi_min, seed=seed)


def sid(text: str) -> str:
    """The same id for the same text."""
    return str(uuid7(0, hashlib.sha256(text.encode()).digest()[:10]))


@dataclass
class Hour:
    """What one simulated hour came to."""

    spent: int
    kept: list[tuple[int, float, Stratum]]
    skipped: list[Skipped]
    pis: list[float]


def run_hour(
    rule: Selector, *, hardness: list[float], size: int = 50_000, hour: int = 0, tag: str = "", directions: bool = False
) -> Hour:
    """Parts at an even pace over the hour; i-th part's hardness is its only term."""
    kept, skipped, pis = [], [], []
    before = rule.pace.spent
    for i, u in enumerate(hardness):
        at = START + hour * HOUR + i * HOUR / len(hardness)
        turn = 2 * np.pi * i / LEAST_SEEN  # all around the circle, so that the centre is the origin
        direction = np.array([np.cos(turn), np.sin(turn)], dtype=np.float32) if directions else None
        part = Candidate(id=sid(f"{tag}/{hour}/{i}"), at=at, size=size, terms=Terms(margin=1 - u, direction=direction))
        choice = rule.consider(part)
        if i == 0:
            before = 0
        if isinstance(choice, Kept):
            rule.accepted(part.id, part, choice.selection.stratum)
            kept.append((i, choice.selection.pi_select, choice.selection.stratum))
            pis.append(choice.selection.pi_select)
        else:
            skipped.append(choice)
            pis.append(choice.pi)
    return Hour(rule.pace.spent - before, kept, skipped, pis)


def hard_and_easy(n: int, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [rng.uniform(0.5, 1.0) if rng.random() < 0.2 else rng.uniform(0, 0.2) for _ in range(n)]


def test_the_coin_is_uniform_and_repeats() -> None:
    draws = [coin(1, str(i)) for i in range(4000)]
    assert draws == [coin(1, str(i)) for i in range(4000)]
    assert np.mean(draws) == pytest.approx(0.5, abs=0.02)
    assert coin(2, "0") != coin(1, "0")
    assert min(draws) >= 0
    assert max(draws) < 1


def test_the_hours_budget_is_used_and_kept() -> None:
    budget = 120 * (50_000 + ENVELOPE_BYTES)
    rule = selector(budget)
    for hour in range(4):
        done = run_hour(rule, hardness=hard_and_easy(1000, hour), hour=hour)
        assert done.spent <= budget
        if hour:  # the first hour learns the line's speed and mean hardness
            assert done.spent > 0.75 * budget


def test_hard_parts_are_kept_more_often_but_easy_ones_too() -> None:
    rule = selector(100 * 52_048)
    us = hard_and_easy(2000, 5)
    run_hour(rule, hardness=us)
    done = run_hour(rule, hardness=us, hour=1)
    kept = {i for i, _, _ in done.kept}
    hard = [i for i, u in enumerate(us) if u >= 0.5]
    easy = [i for i, u in enumerate(us) if u < 0.5]
    hard_rate, easy_rate = (sum(i in kept for i in group) / len(group) for group in (hard, easy))
    assert hard_rate > 3 * easy_rate > 0
    assert {s for _, _, s in done.kept} == {Stratum.HARD, Stratum.AUDIT}


@settings(max_examples=40, deadline=None)
@given(
    budget=st.integers(1, 20_000_000),
    n=st.integers(1, 300),
    size=st.integers(1, 400_000),
    audit=st.floats(0, 1),
    pi_min=st.floats(1e-4, 1),
    seed=st.integers(0, 99),
)
def test_probabilities_are_in_range_and_the_cap_holds(
    *, budget: int, n: int, size: int, audit: float, pi_min: float, seed: int
) -> None:
    rule = selector(budget, audit=audit, pi_min=pi_min, seed=seed)
    for hour in range(2):
        done = run_hour(rule, hardness=hard_and_easy(n, seed), size=size, hour=hour)
        assert rule.pace.spent <= budget
        assert all(0 < pi <= 1 for pi in done.pis)


def test_horvitz_thompson_is_unbiased_over_many_runs() -> None:
    """A known total (wrong parts, which are mostly hard) is estimated from the kept alone, over 300 seeded hours."""
    us = hard_and_easy(400, 11)
    rng = random.Random(3)
    wrong = [rng.random() < u for u in us]
    total, estimates, naive, capped = sum(wrong), [], [], 0
    for seed in range(300):
        rule = selector(60 * 52_048, seed=seed)
        run_hour(rule, hardness=us, tag="warm", hour=0)
        done = run_hour(rule, hardness=us, tag="run", hour=1)
        capped += sum(s.reason is Skip.BUDGET for s in done.skipped)
        estimates.append(sum(1 / pi for i, pi, _ in done.kept if wrong[i]))
        naive.append(sum(wrong[i] for i, _, _ in done.kept) / len(done.kept))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(total, abs=3.5 * error)
    assert error < 0.05 * total
    assert capped == 0
    assert np.mean(naive) > 1.5 * total / len(us)  # what ignoring pi would have said


def test_the_audit_stream_is_a_flat_sample() -> None:
    """Its probability, the recorded floor, does not depend on hardness."""
    rule = selector(100 * 52_048)
    run_hour(rule, hardness=[0.1] * 500, hour=0)
    floors = []
    for i, u in enumerate([0.05, 0.95] * 200):
        part = Candidate(id=f"x{i}", at=START + HOUR + i * 7.0, size=50_000, terms=Terms(margin=1 - u))
        choice = rule.consider(part)
        if isinstance(choice, Kept):
            floors.append((u, choice.selection.parts.floor))
    low, high = (np.mean([f for u, f in floors if u == v]) for v in (0.05, 0.95))
    assert low == pytest.approx(high, rel=0.5)


def test_a_sudden_flood_reaches_the_cap_and_says_so() -> None:
    budget = 10 * 52_048
    rule = selector(budget, pi_min=1.0)
    run_hour(rule, hardness=[0.5] * 20, hour=0)
    done = run_hour(rule, hardness=[0.5] * 40, hour=1, size=50_000)
    assert done.spent <= budget
    big = Candidate(id="big", at=START + 2 * HOUR, size=budget + 1, terms=None)
    assert rule.consider(big) == Skipped(Skip.BUDGET, 1.0)
    assert rule.skipped[Skip.BUDGET] >= 1


def test_near_duplicates_get_a_tenth() -> None:
    rule = selector(10**9)
    run_hour(rule, hardness=[0.9] * LEAST_SEEN, directions=True)
    again = run_hour(rule, hardness=[0.9] * 8, directions=True, tag="b", hour=1)
    assert again.pis[:4] == pytest.approx([0.1] * 4)


def test_a_new_model_forgets_the_old_ones_directions() -> None:
    rule = selector(10**9)
    rule.use_model("a")
    run_hour(rule, hardness=[0.9] * LEAST_SEEN, directions=True)
    rule.use_model("b")
    assert run_hour(rule, hardness=[0.9], directions=True, tag="b", hour=1).pis == [1.0]


def test_what_cannot_be_judged_is_kept_until_a_quarter_of_the_hour_is_gone() -> None:
    budget = 40 * 52_048
    rule = selector(budget)
    probabilities = []
    for i in range(200):
        part = Candidate(id=f"u{i}", at=START + i, size=50_000, terms=None)
        choice = rule.consider(part)
        if isinstance(choice, Kept):
            assert choice.selection.stratum is Stratum.CANNOT_JUDGE
            rule.accepted(part.id, part, choice.selection.stratum)
        probabilities.append(choice.selection.pi_select if isinstance(choice, Kept) else choice.pi)
    assert probabilities[:10] == [1.0] * 10
    assert all(SMALLEST <= pi <= 0.02 for pi in probabilities[12:])
    assert rule.pace.spent < budget / 2


def test_flagged_parts_are_outside_the_budget() -> None:
    rule = selector(1)
    part = Candidate(id="f", at=START, size=50_000, terms=Terms(margin=0.1))
    flagged = rule.flagged(part)
    rule.accepted("f", part, flagged.stratum)
    assert (flagged.stratum, flagged.pi_select, rule.pace.spent) == (Stratum.FLAGGED, 1.0, 0)


def test_a_restart_within_the_hour_does_not_double_the_budget() -> None:
    budget = 50 * 52_048
    rule = selector(budget)
    run_hour(rule, hardness=[0.5] * 500)
    state = Pace.restore(rule.pace.snapshot())
    again = Selector(pace=Pace(bytes_per_hour=budget, hour_s=HOUR, state=state), audit_share=0.3, pi_min=0.02, seed=9)
    run_hour(again, hardness=[0.5] * 500, tag="again")
    assert again.pace.spent <= budget


def test_a_clock_set_back_a_little_does_not_renew_the_budget() -> None:
    pace = Pace(bytes_per_hour=1000, hour_s=HOUR)
    pace.arrive(START + 10, size=10)
    pace.spend(900, unjudged=False)
    pace.arrive(START - 60, size=10)
    assert pace.left == 100
    pace.arrive(START - 5 * HOUR, size=10)
    assert pace.left == 1000


def test_the_clouds_order_changes_the_budget() -> None:
    rule = selector(10)
    rule.set_budget(bytes_per_hour=10**9, audit_share=0.5)
    assert run_hour(rule, hardness=[0.5] * 20).spent > 0


def test_no_terms_at_all_is_an_average_part() -> None:
    rule = selector(100 * 52_048)
    choice = rule.consider(Candidate(id="a", at=START, size=50_000, terms=Terms()))
    pi = choice.selection.pi_select if isinstance(choice, Kept) else choice.pi
    assert 0 < pi <= 1
