from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.decision import Judgement, cannot_judge, decide
from edge_agent.updater.probation import Failed, Passed, Probation, shadow
from models.contracts.model_manifest import ClassSpec, Thresholds
from models.contracts.release_manifest import Probe
from models.contracts.sample import CannotJudge
from models.runtime.inspector import inspect, load_model
from tests.models.runtime.tiny import opened, part, tiny_base, tiny_release

LIMITS = Thresholds(pass_below=0.5, call_at=0.5, reject_above=0.5)
CLASSES = [ClassSpec(name="good", defect=False), ClassSpec(name="crack", defect=True)]


def says(defect: float) -> Judgement:
    import numpy as np

    return decide(np.array([1 - defect, defect]), classes=CLASSES, thresholds=LIMITS, reason=None, latency_ms=1)


GOOD, BAD = says(0.1), says(0.9)
DARK = cannot_judge(CannotJudge.TOO_DARK, latency_ms=1)
BROKEN = cannot_judge(CannotJudge.BAD_SCORES, latency_ms=1)


def outcome(probe: Probe, pairs: list[tuple[Judgement, Judgement | None]], latency: float = 1.0):
    probation = Probation(probe)
    for new, old in pairs:
        result = probation.add(new, old, latency_ms=latency)
        if result is not None:
            return result
    return None


def test_agreement_passes_after_exactly_the_parts_asked_for() -> None:
    assert outcome(Probe(probation_parts=5), [(GOOD, GOOD)] * 4) is None
    assert outcome(Probe(probation_parts=5), [(GOOD, GOOD)] * 5) == Passed(5)


def test_no_parts_is_passed_at_once() -> None:
    assert Probation(Probe(probation_parts=0)).start() == Passed(0)
    assert Probation(Probe(probation_parts=1)).start() is None


def test_disagreement_ends_the_trial_early() -> None:
    probe = Probe(probation_parts=20, max_disagreement=0.1)
    result = outcome(probe, [(BAD, GOOD)] * 20)
    assert isinstance(result, Failed)
    assert result.parts == 3


def test_disagreement_has_no_limit_unless_given() -> None:
    assert outcome(Probe(probation_parts=4), [(BAD, GOOD)] * 4) == Passed(4)


def test_parts_only_the_new_model_cannot_judge_are_held_against_it() -> None:
    probe = Probe(probation_parts=10, max_unjudged=0.2)
    assert isinstance(outcome(probe, [(BROKEN, GOOD)] * 10), Failed)
    assert outcome(probe, [(DARK, DARK)] * 10) == Passed(10)
    assert isinstance(outcome(probe, [(BROKEN, None)] * 10), Failed)
    assert outcome(probe, [(DARK, None)] * 10) == Passed(10)


def test_latency_is_judged_at_the_end() -> None:
    probe = Probe(probation_parts=5, latency_p95_ms=10)
    result = outcome(probe, [(GOOD, GOOD)] * 5, latency=11)
    assert isinstance(result, Failed)
    assert "latency" in result.why
    assert outcome(probe, [(GOOD, GOOD)] * 5, latency=9) == Passed(5)


@pytest.mark.parametrize("same_base", [True, False])
def test_the_shadow_says_what_the_previous_model_would_have_said(same_base: bool) -> None:
    release, old = tiny_release(2, seed=2), tiny_release(1, base_seed=0 if same_base else 1)
    new_model = load_model(opened(), release.manifest, base_sha=tiny_base().sha, blobs=release.blobs, release=2)
    seed = 0 if same_base else 1
    previous = load_model(opened(seed), old.manifest, base_sha=tiny_base(seed).sha, blobs=old.blobs, release=1)
    pixels = part(3)
    direct = inspect(previous, pixels)
    found = shadow(previous, inspect(new_model, pixels), pixels)
    assert found.decision.scores["crack"] == pytest.approx(float(direct.probabilities[1]), abs=1e-6)


def test_the_shadow_of_a_frame_nobody_can_judge_has_the_reason() -> None:
    release = tiny_release(1)
    model = load_model(opened(), release.manifest, base_sha=tiny_base().sha, blobs=release.blobs, release=1)
    import numpy as np

    black = np.zeros((48, 48), dtype=np.uint8)
    found = shadow(replace(model, release=0), inspect(model, black), black)
    assert found.decision.cannot_judge is CannotJudge.TOO_DARK
