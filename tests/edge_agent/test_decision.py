from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.decision import cannot_judge, decide
from models.contracts.model_manifest import ClassSpec, Thresholds
from models.contracts.sample import CannotJudge, Verdict

CLASSES = [
    ClassSpec(name="good", defect=False),
    ClassSpec(name="scratch-ok", defect=False),
    ClassSpec(name="crack", defect=True),
    ClassSpec(name="dirt", defect=True),
]
LIMITS = Thresholds(pass_below=0.3, call_at=0.5, reject_above=0.8)


def judged(*probabilities: float, thresholds: Thresholds = LIMITS):
    return decide(
        np.array(probabilities, dtype=np.float32), classes=CLASSES, thresholds=thresholds, reason=None, latency_ms=1.0
    )


@pytest.mark.parametrize(
    ("scores", "verdict", "predicted", "defect"),
    [
        ((0.8, 0.1, 0.05, 0.05), Verdict.PASS, "good", False),
        ((0.1, 0.75, 0.1, 0.05), Verdict.PASS, "scratch-ok", False),
        ((0.4, 0.2, 0.3, 0.1), Verdict.UNSURE, "good", False),
        ((0.4, 0.0, 0.25, 0.35), Verdict.UNSURE, "dirt", True),
        ((0.05, 0.05, 0.5, 0.4), Verdict.REJECT, "crack", True),
    ],
)
def test_verdict_and_forced_call(scores: tuple[float, ...], verdict: Verdict, predicted: str, defect: bool) -> None:
    found = judged(*scores)
    assert (found.decision.verdict, found.decision.predicted, found.call.defect) == (verdict, predicted, defect)
    assert found.call.g == pytest.approx(sum(scores[2:]) if defect else sum(scores[:2]), abs=1e-6)
    assert found.decision.confidence == pytest.approx(max(scores), abs=1e-6)


def test_predicted_is_of_the_forced_calls_side_even_when_another_class_is_likelier() -> None:
    """0.4 good is the largest single class, but 0.6 says defect in all."""
    assert judged(0.4, 0.0, 0.25, 0.35).call.predicted == "dirt"


def test_cuts_belong_to_the_side_above() -> None:
    half = Thresholds(pass_below=0.5, call_at=0.5, reject_above=0.5)
    assert judged(0.5, 0, 0.5, 0, thresholds=half).decision.verdict is Verdict.REJECT
    assert judged(0.51, 0, 0.49, 0, thresholds=half).decision.verdict is Verdict.PASS


@pytest.mark.parametrize(
    "scores", [(np.nan, 0, 0, 1), (np.inf, 0, 0, 0), (0.2, 0.2, 0.2, 0.2), (0, 0, 0, 0), (1.5, -0.5, 0, 0), (1.0,), ()]
)
def test_unusable_scores_are_unsure_with_a_reason(scores: tuple[float, ...]) -> None:
    found = judged(*scores)
    assert found.decision.verdict is Verdict.UNSURE
    assert found.decision.cannot_judge is CannotJudge.BAD_SCORES
    assert found.call is None


def test_a_reason_wins_over_scores() -> None:
    found = decide(
        np.array([1, 0, 0, 0], dtype=np.float32),
        classes=CLASSES,
        thresholds=LIMITS,
        reason=CannotJudge.TOO_DARK,
        latency_ms=float("nan"),
    )
    assert found.decision.cannot_judge is CannotJudge.TOO_DARK
    assert found.decision.latency_ms == 0.0


def test_without_a_model_there_is_no_reason_but_still_a_verdict() -> None:
    assert cannot_judge(None, latency_ms=2.0).decision.verdict is Verdict.UNSURE


@given(
    hnp.arrays(np.float32, st.integers(0, 6), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted),
)
def test_every_input_has_a_decision(scores: np.ndarray, cuts: list[float]) -> None:
    limits = Thresholds(pass_below=cuts[0], call_at=cuts[1], reject_above=cuts[2])
    found = decide(scores, classes=CLASSES, thresholds=limits, reason=None, latency_ms=0.0)
    assert (found.call is None) == (found.decision.cannot_judge is not None)


@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).filter(lambda v: sum(v) > 1e-3))
def test_scores_are_probabilities_whatever_the_rounding(values: list[float]) -> None:
    scores = np.array(values, dtype=np.float32) / np.float32(sum(values))
    found = judged(*scores)
    assert found.call is not None
    assert sum(found.decision.scores.values()) == pytest.approx(1, abs=1e-6)
    assert 0 <= found.call.margin <= 1
    assert 0 <= found.call.g <= 1
