"""Models on the test set, read once: the rows of the final table and the paired intervals between them.

Figures are for the forced call (balanced accuracy) and the defect score (AUROC); escape is P(passed | defect), overkill
P(rejected | good), and what is neither passed nor rejected went to a person. Intervals are paired percentile
bootstraps over cells, drawn within each class (Efron and Tibshirani 1993, chapter 13): the same draw for both models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.gate.evaluate import Calls, TokenCache, call, score
from cloud.gate.metrics import auroc, escape_rate, overkill_rate
from cloud.lines.schemas import ReferenceImage
from models.contracts.base import sha256_hex
from models.contracts.model_manifest import Thresholds
from models.runtime.inspector import LineModel
from simulators.cells import Cell
from simulators.demo.scenario import CLASSES

Mask = NDArray[np.bool_]
F64 = NDArray[np.float64]
DRAWS = 2000
THRESHOLD_STEPS = 200


@dataclass(frozen=True, slots=True)
class Judged:
    """One model's word on N cells: forced call, defect score, and what the box would do. `defect` [N] is the truth."""

    defect: Mask
    called: Mask
    scores: F64
    passed: Mask
    rejected: Mask

    @property
    def right(self) -> Mask:
        return self.called == self.defect


@dataclass(frozen=True, slots=True)
class Measures:
    """One row of the table. Shares are of the cells of the class they speak of."""

    cells: int
    balanced_accuracy: float
    auroc: float
    escape: float
    overkill: float
    unsure: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference and its 95 % interval."""

    value: float
    low: float
    high: float


class Images:
    """Test or gate cells as the evaluation wants them: bytes by digest, in the package's order."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        data = [cell.path.read_bytes() for cell in cells]
        names = [sha256_hex(one) for one in data]
        self._data = dict(zip(names, data, strict=True))
        self.defect = np.array([cell.defective for cell in cells], dtype=np.bool_)
        self.references = [
            ReferenceImage(
                sha256=name,
                label=cell.label,
                domain=cell.kind,
                group=str(cell.block),
                must_catch=False,
            )
            for name, cell in zip(names, cells, strict=True)
        ]

    def read(self, sha256: str) -> bytes:
        return self._data[sha256]


def judge(model: LineModel, images: Images, cache: TokenCache) -> Judged:
    """Run a release as a box would, by its own thresholds."""
    scores = score(model, images.references, images.read, cache)
    return from_calls(call(scores, model.head, model.thresholds, CLASSES), images.defect)


def from_calls(calls: Calls, defect: Mask) -> Judged:
    """Cells that could not be judged count as the worst call: a wrong one, sent to a person."""
    called = np.where(calls.judged, calls.called_defect, ~defect)
    scores = np.where(calls.judged, calls.defect_score, np.where(defect, 0.0, 1.0))
    return Judged(defect, called, scores, calls.passed, calls.rejected)


def always_pass(defect: Mask) -> Judged:
    """The inspector that finds nothing: what a good balanced accuracy must beat."""
    nothing = np.zeros(len(defect), dtype=np.bool_)
    return Judged(defect, nothing, np.zeros(len(defect)), ~nothing, nothing)


def at_threshold(one: Judged, threshold: float) -> Judged:
    """The same scores cut at one threshold, nobody unsure."""
    called = one.scores >= threshold
    return Judged(one.defect, called, one.scores, ~called, called)


def best_threshold(one: Judged) -> float:
    """The cut with the highest balanced accuracy, the middle of the best stretch: all that a re-tuning can change."""
    cuts = np.unique(np.quantile(one.scores, np.linspace(0, 1, THRESHOLD_STEPS + 1)))
    found = np.array([balanced(at_threshold(one, float(cut))) for cut in cuts])
    best = cuts[found >= found.max() - 1e-12]
    return float(best[len(best) // 2])


def balanced(one: Judged) -> float:
    """Mean of the two recalls."""
    right = one.right
    return float((right[one.defect].mean() + right[~one.defect].mean()) / 2)


def measures(one: Judged) -> Measures:
    return Measures(
        cells=len(one.defect),
        balanced_accuracy=balanced(one),
        auroc=auroc(one.defect, one.scores),
        escape=escape_rate(one.defect, one.passed),
        overkill=overkill_rate(one.defect, one.rejected),
        unsure=float((~one.passed & ~one.rejected).mean()),
    )


def draws(defect: Mask, *, seed: int, count: int = DRAWS) -> NDArray[np.int64]:
    """Row numbers [count, N]: as many defects and as many good cells as there are, with replacement."""
    generator = np.random.default_rng(seed)
    classes = [np.flatnonzero(defect), np.flatnonzero(~defect)]
    return np.concatenate([generator.choice(rows, (count, len(rows))) for rows in classes], axis=1)


def difference(
    one: Judged, other: Judged, *, seed: int, statistic: Callable[[Judged], float] = balanced, count: int = DRAWS
) -> Interval:
    """`statistic` of `one` minus that of `other`, with its paired 95 % interval."""
    found = [
        statistic(_rows(one, rows)) - statistic(_rows(other, rows))
        for rows in draws(one.defect, seed=seed, count=count)
    ]
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(statistic(one) - statistic(other), float(low), float(high))


def area(one: Judged) -> float:
    """AUROC as a statistic."""
    return auroc(one.defect, one.scores)


def recovered(loop: float, collapsed: float, joint: float) -> float | None:
    """Share of the gap between the collapsed model and the joint reference; None when there is no gap to close."""
    gap = joint - collapsed
    return (loop - collapsed) / gap if gap > 0 else None


def _rows(one: Judged, rows: NDArray[np.int64]) -> Judged:
    return Judged(one.defect[rows], one.called[rows], one.scores[rows], one.passed[rows], one.rejected[rows])


@dataclass(frozen=True, slots=True)
class TestTable:
    """The final table. `rows` by name; `gains` of the loop over a rival; `forgetting` on mono, negative is a loss."""

    __test__ = False  # no test class, whatever its name

    rows: Mapping[str, Measures]
    mono_start: Measures
    mono_loop: Measures
    recovered_balanced_accuracy: float | None
    recovered_auroc: float | None
    gains: Mapping[str, Interval]
    auroc_gain: Interval
    forgetting: Interval
    threshold: float
    thresholds: Thresholds


def table(
    *,
    start: LineModel,
    loop: LineModel,
    joint: LineModel,
    test_poly: Images,
    test_mono: Images,
    gate_poly: Images,
    seed: int,
) -> TestTable:
    """Everything the end of the demo says about models.

    Args:
        start: release 1, trained on mono cells only: after the change it is the collapsed model.
        loop: what the boxes run at the end.
        joint: the reference trained on every poly label of the stream.
        gate_poly: where the rival "threshold re-tuned only" is tuned, as the gate tunes every release.
    """
    cache = TokenCache()
    collapsed, learned, reference = (judge(model, test_poly, cache) for model in (start, loop, joint))
    threshold = best_threshold(judge(start, gate_poly, cache))
    retuned, nothing = at_threshold(collapsed, threshold), always_pass(test_poly.defect)
    judged = {
        "collapsed": collapsed,
        "always_pass": nothing,
        "threshold_retuned_only": retuned,
        "loop": learned,
        "joint_reference": reference,
    }
    rows = {name: measures(one) for name, one in judged.items()}
    before, after = judge(start, test_mono, cache), judge(loop, test_mono, cache)
    shares = {
        name: recovered(*(getattr(rows[row], name) for row in ("loop", "collapsed", "joint_reference")))
        for name in ("balanced_accuracy", "auroc")
    }
    return TestTable(
        rows=rows,
        mono_start=measures(before),
        mono_loop=measures(after),
        recovered_balanced_accuracy=shares["balanced_accuracy"],
        recovered_auroc=shares["auroc"],
        gains={
            "always_pass": difference(learned, nothing, seed=seed),
            "threshold_retuned_only": difference(learned, retuned, seed=seed),
        },
        auroc_gain=difference(learned, collapsed, seed=seed, statistic=area),
        forgetting=difference(after, before, seed=seed),
        threshold=threshold,
        thresholds=loop.thresholds,
    )
