"""The rules for a full disk and for whose turn it is, without a disk."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.spool.books import gaps, ranges
from edge_agent.spool.queue import FairQueue
from edge_agent.spool.thinning import P_MAX, P_MIN, Candidate, coin, survival, thin
from models.contracts.uplink import LossReason, Priority

EPOCH = "0" * 16
candidates = st.lists(
    st.builds(
        Candidate,
        sid=st.uuids().map(str),
        bytes=st.integers(1, 10**6),
        prio=st.sampled_from(list(Priority)),
        group=st.sampled_from(["good|1", "good|2", "crack|1"]),
        score=st.floats(0, 1),
        survive=st.floats(0.01, 1),
    ),
    max_size=40,
    unique_by=lambda candidate: candidate.sid,
)


@given(candidates, st.integers(1, 10**7))
def test_every_verdict_is_lawful(items: list[Candidate], excess: int) -> None:
    verdicts = thin(items, excess=excess, epoch=EPOCH, number=1)
    known = {item.sid: item for item in items}
    gone = {sid: reason for sid, reason, _ in verdicts.gone}
    assert len(gone) == len(verdicts.gone)
    assert not gone.keys() & {sid for sid, _ in verdicts.survived}
    for sid, p in verdicts.survived:
        assert 0 < p < known[sid].survive
    for sid, reason in gone.items():
        thinned = known[sid].prio in (Priority.HARD, Priority.AUDIT)
        assert reason is (LossReason.THINNED if thinned else LossReason.EVICTED)
    humans = {known[sid].prio for sid in gone} & {Priority.FLAGGED, Priority.ALERT}
    assert not humans or not any(item.prio in (Priority.HARD, Priority.AUDIT) for item in items)


def test_the_coin_falls_with_the_stated_probability() -> None:
    tosses = [coin(EPOCH, 1, f"sid-{i}") for i in range(4000)]
    assert all(0 <= toss < 1 for toss in tosses)
    for p in (0.1, 0.5, 0.9):
        assert abs(sum(toss < p for toss in tosses) / 4000 - p) < 0.03
    assert coin(EPOCH, 1, "a") == coin(EPOCH, 1, "a") != coin(EPOCH, 2, "a")


def test_survival_meets_the_goal_and_prefers_the_rare_and_hard() -> None:
    crowd = [Candidate(f"c{i}", 1000, Priority.HARD, "good|1", 0.1, 1.0) for i in range(90)]
    rare = [Candidate(f"r{i}", 1000, Priority.AUDIT, "crack|1", 0.9, 1.0) for i in range(10)]
    probabilities = survival(crowd + rare, goal=50_000)
    assert sum(probabilities) * 1000 == pytest.approx(50_000, rel=0.01)
    assert min(probabilities[90:]) > max(probabilities[:90])
    assert all(P_MIN <= p <= P_MAX for p in probabilities)


def test_hard_and_audit_share_over_batches_of_any_size() -> None:
    queue, served = FairQueue(), Counter[str]()
    for _ in range(90):
        chosen = queue.choose(
            {Priority.HARD: ["h"], Priority.AUDIT: ["a"]}, limit=1, weights={Priority.HARD: 2, Priority.AUDIT: 1}
        )
        served.update(chosen)
    assert served == {"h": 60, "a": 30}


def test_urgent_first_debug_last() -> None:
    heads = {prio: [prio.value] for prio in reversed(Priority)}
    order = FairQueue().choose(heads, limit=9, weights={})
    assert order[:2] == ["alert", "flagged"]
    assert order[-1] == "debug"
    assert len(order) == 5


@given(st.sets(st.integers(1, 60)))
def test_ranges_and_gaps_tile(numbers: set[int]) -> None:
    held = {n for first, last in ranges(sorted(numbers)) for n in range(first, last + 1)}
    free = {n for first, last in gaps(numbers, 60) for n in range(first, last + 1)}
    assert held == numbers
    assert free == set(range(1, 61)) - numbers
