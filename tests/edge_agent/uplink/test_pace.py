"""Pauses and budgets on a clock that moves when told."""

from __future__ import annotations

import random

import pytest

from edge_agent.uplink.pace import Backoff, Silence, TokenBucket


def test_the_bucket_holds_its_rate() -> None:
    bucket, sent, t = TokenBucket(1000.0, 2000), 0, 0.0
    while t < 100:
        if bucket.ready(t, 500):
            bucket.spend(500)
            sent += 500
        t += 0.1
    assert 100_000 <= sent <= 102_000


def test_more_than_a_burst_goes_when_full_and_is_owed() -> None:
    bucket = TokenBucket(1000.0, 1000)
    assert bucket.ready(0.0, 5000)
    bucket.spend(5000)
    assert not bucket.ready(3.9, 1)
    assert bucket.ready(4.1, 1)


def test_no_limit_and_a_clock_that_jumps_back() -> None:
    free = TokenBucket(None, 1)
    free.spend(10**9)
    assert free.ready(0.0, 10**9)
    bucket = TokenBucket(10.0, 10)
    assert bucket.ready(100.0, 10)
    bucket.spend(10)
    assert not bucket.ready(50.0, 10)


@pytest.mark.parametrize("failures", [1, 5, 40])
def test_full_jitter_is_bounded_and_spread(failures: int) -> None:
    rng, pauses = random.Random(1), []
    for _ in range(300):
        backoff = Backoff(base=1.0, cap=300.0, rng=rng)
        pause = 0.0
        for _ in range(failures):
            pause = backoff.fail()
        pauses.append(pause)
    bound = min(300.0, 2.0**failures)
    assert max(pauses) <= bound
    assert min(pauses) < 0.1 * bound
    assert sum(pauses) / 300 == pytest.approx(bound / 2, rel=0.15)


def test_silence_counts_what_was_said_together_once() -> None:
    backoff = Backoff(base=1.0, cap=300.0, rng=random.Random(1))
    silence = Silence(backoff)
    for since in (1.0, 1.1, 1.2):
        silence.unanswered(since, 16.0)
    assert (backoff.failures, silence.broken) == (1, True)
    silence.unanswered(20.0, 36.0)
    assert backoff.failures == 2
    silence.heard(40.0)
    silence.unanswered(39.0, 50.0)
    assert not silence.broken
