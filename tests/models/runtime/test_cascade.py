"""Routing, audits and the estimate of the gate's own miss rate."""

from __future__ import annotations

import random

import pytest

from models.contracts.base import Malformed, decode
from models.contracts.model_manifest import AdapterManifest, CascadeCuts
from models.contracts.sample import Verdict
from models.runtime.cascade import CascadeRule, CascadeTally, Outcome, Route, miss_rates, outcome
from models.runtime.intervals import clopper_pearson
from tests.models.runtime.tiny import tiny_release

CUTS = CascadeCuts(certain_pass_below=0.1, certain_reject_above=0.9)


class Draws(random.Random):
    """Gives the numbers it was handed and counts how often it was asked."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(0.0, Verdict.PASS), (0.0999, Verdict.PASS), (0.1, None), (0.5, None), (0.8999, None), (0.9, Verdict.REJECT),
     (1.0, Verdict.REJECT), (None, None), (float("nan"), None)],
)  # fmt: skip
def test_only_scores_beyond_a_cut_are_certain(score: float | None, verdict: Verdict | None) -> None:
    rule = CascadeRule(CUTS, audit_share=0.0)
    assert rule.certain(score) is verdict
    routing = rule.route(score, Draws(0.5))
    assert (routing.route is Route.ESCALATE) == (verdict is None)
    assert routing.verdict is verdict


def test_an_absent_cut_ends_nothing_on_its_side() -> None:
    rule = CascadeRule(CascadeCuts(certain_pass_below=0.1), audit_share=0.0)
    assert rule.certain(1.0) is None
    assert CascadeRule(CascadeCuts(), audit_share=0.0).certain(0.0) is None


def test_the_audit_coin_is_tossed_for_parts_that_end_and_recorded() -> None:
    rule, rng = CascadeRule(CUTS, audit_share=0.25), Draws(0.2499, 0.25)
    first, second = rule.route(0.0, rng), rule.route(0.95, rng)
    assert (first.route, first.verdict, first.audit_probability) == (Route.AUDIT, Verdict.PASS, 0.25)
    assert (second.route, second.verdict, second.audit_probability) == (Route.END_AT_GATE, Verdict.REJECT, 0.25)
    assert rule.route(0.5, rng).audit_probability is None  # an empty Draws would have raised


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_no_probability_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        CascadeRule(CUTS, audit_share=share)


def test_what_counts_as_which_kind_of_miss() -> None:
    assert outcome(Verdict.PASS, Verdict.PASS) is Outcome.SAME
    assert outcome(Verdict.PASS, Verdict.REJECT) is Outcome.ESCAPE
    assert outcome(Verdict.REJECT, Verdict.PASS) is Outcome.OVERKILL
    assert outcome(Verdict.PASS, Verdict.UNSURE) is outcome(Verdict.REJECT, Verdict.UNSURE) is Outcome.UNSURE
    with pytest.raises(ValueError, match="passed or rejected"):
        outcome(Verdict.UNSURE, Verdict.PASS)


def test_with_one_share_the_estimate_is_the_plain_share_with_exact_limits() -> None:
    tally = CascadeTally()
    assert miss_rates(tally) is None
    for i in range(50):
        tally.audited(Outcome.ESCAPE if i < 2 else Outcome.SAME, 0.02)
    found = miss_rates(tally)
    assert found is not None
    assert (found.audited, found.escape.rate, found.overkill.rate) == (50, pytest.approx(0.04), 0.0)
    assert (found.escape.low, found.escape.high) == pytest.approx(clopper_pearson(2, 50))
    assert found.overkill.high == pytest.approx(clopper_pearson(0, 50)[1])


def test_weights_undo_a_share_that_changed() -> None:
    """A thousand parts an hour: misses are 10 % in the first hour and 0 in the second, audited at 50 % and at 5 %."""
    tally = CascadeTally()
    for i in range(500):
        tally.audited(Outcome.OVERKILL if i < 50 else Outcome.SAME, 0.5)
    for _ in range(50):
        tally.audited(Outcome.SAME, 0.05)
    found = miss_rates(tally)
    assert found is not None
    assert found.overkill.rate == pytest.approx(0.05)
    assert found.overkill.high - found.overkill.low > clopper_pearson(27.5, 550)[1] - clopper_pearson(27.5, 550)[0]


def test_the_limits_hold_the_true_miss_rate() -> None:
    """Simulated boxes whose gate truly errs on 3 % of what it ends: at least 95 % of the intervals hold 3 %."""
    rng, rule, held = random.Random(7), CascadeRule(CUTS, audit_share=0.1), 0
    for _ in range(150):
        tally = CascadeTally()
        for _ in range(1200):
            if rule.route(0.0, rng).route is Route.AUDIT:
                wrong = rng.random() < 0.03
                tally.audited(Outcome.ESCAPE if wrong else Outcome.SAME, rule.audit_share)
        found = miss_rates(tally)
        held += found is not None and found.escape.low <= 0.03 <= found.escape.high
    assert held >= 0.95 * 150 - 6


def test_cuts_ride_in_the_signed_manifest_and_leave_old_ones_byte_for_byte() -> None:
    manifest = tiny_release().manifest
    assert b"cascade" not in manifest.encode()
    signed = manifest.model_copy(update={"cascade": CUTS})
    assert decode(AdapterManifest, signed.encode()) == signed
    assert signed.digest() != manifest.digest()


@pytest.mark.parametrize(
    "cuts", [{"certain_pass_below": 0.6}, {"certain_reject_above": 0.4}, {"certain_pass_below": 1.5},
             {"certain_pass_below": 0.9, "certain_reject_above": 0.1}],
)  # fmt: skip
def test_cuts_that_contradict_the_call_are_refused(cuts: dict[str, float]) -> None:
    document = tiny_release().manifest.model_dump(mode="json", exclude_none=True) | {"cascade": cuts}
    from models.contracts.base import canonical

    with pytest.raises(Malformed, match="cascade"):
        decode(AdapterManifest, canonical(document))
