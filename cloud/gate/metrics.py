"""Figures of merit on numpy arrays: what is counted, never what is good enough.

Labels and predictions are class indices [N]; `defect` says per class index whether it is a defect. A figure that has no
data is NaN and is left for the caller to name. Bootstraps resample groups when groups are given: images of one module
are not independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class UnknownMetric(KeyError):
    """A metric nobody computes was asked for: a rule or the settings name it wrongly."""


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def confusion(truth: Ints, predicted: Ints, classes: int) -> Ints:
    """Counts [truth, predicted]; a prediction of -1 (could not be judged) is counted in the extra last column."""
    table = np.zeros((classes, classes + 1), dtype=np.int64)
    np.add.at(table, (truth, np.where(predicted < 0, classes, predicted)), 1)
    return table


def recalls(truth: Ints, predicted: Ints, classes: int) -> F64:
    """Recall per class [C], NaN for a class without images."""
    table = confusion(truth, predicted, classes)
    totals = table.sum(axis=1)
    return np.array([_ratio(table[c, c], totals[c]) for c in range(classes)])


def accuracy(truth: Ints, predicted: Ints) -> float:
    """Share of right predictions."""
    return _ratio(float((truth == predicted).sum()), len(truth))


def balanced_accuracy(truth: Ints, predicted: Ints, classes: int) -> float:
    """Mean recall of the classes that have images."""
    found = recalls(truth, predicted, classes)
    return float(np.nanmean(found)) if len(truth) else float("nan")


def macro_f1(truth: Ints, predicted: Ints, classes: int) -> float:
    """Mean F1 of the classes that have images."""
    table = confusion(truth, predicted, classes)
    hits, actual, called = table.diagonal()[:classes], table.sum(axis=1), table[:, :classes].sum(axis=0)
    present = actual > 0
    if not present.any():
        return float("nan")
    return float((2 * hits[present] / (actual[present] + called[present])).mean())


def auroc(positive: Mask, scores: F64) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative) + half of P(equal), by mid-ranks
    (Mann and Whitney 1947)."""
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if ones == 0 or zeros == 0:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks = (ends - (counts - 1) / 2)[place]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def escape_rate(defect: Mask, passed: Mask) -> float:
    """P(passed | defect)."""
    return _ratio(float((passed & defect).sum()), float(defect.sum()))


def overkill_rate(defect: Mask, rejected: Mask) -> float:
    """P(rejected | good)."""
    return _ratio(float((rejected & ~defect).sum()), float((~defect).sum()))


def debiased_calibration_error2(confidence: F64, right: Mask, bins: int = 10) -> float:
    """Squared L2 calibration error over bins of equal count, less the part that chance alone makes; may be negative.

    ``sum_b n_b/n ((mean conf - mean right)^2 - mean right (1 - mean right) / (n_b - 1))`` (Kumar, Liang and Ma,
    NeurIPS 2019, section 5). Bins of fewer than two images say nothing and are left out.
    """
    order = np.argsort(confidence, kind="stable")
    total, used = 0.0, 0
    for part in np.array_split(order, max(1, min(bins, len(order) // 2))):
        n = len(part)
        if n < 2:
            continue
        share = float(right[part].mean())
        gap = float(confidence[part].mean()) - share
        total += n * (gap * gap - share * (1 - share) / (n - 1))
        used += n
    return total / used if used else float("nan")


def signed_root(squared: float) -> float:
    """The error from its square; chance can make the debiased square negative, which is no error at all."""
    return float(np.sqrt(max(squared, 0.0)))


@dataclass(frozen=True, slots=True)
class Resampler:
    """Bootstrap draws of row numbers. With `groups`, whole groups are drawn; rows without one are their own group.

    Draws are stratified by `strata` when rows are independent, so that a rare class is never drawn away.
    """

    groups: list[str | None]
    strata: Ints
    seed: int = 0
    draws: int = 1000

    def rows(self) -> list[Ints]:
        """Row numbers of every draw."""
        generator = np.random.Generator(np.random.PCG64(self.seed))
        if any(group is not None for group in self.groups):
            names = [group if group is not None else f"\0{i}" for i, group in enumerate(self.groups)]
            members = [np.flatnonzero(part) for part in _one_hot(names)]
            picks = generator.integers(0, len(members), (self.draws, len(members)))
            return [np.concatenate([members[i] for i in pick]) for pick in picks]
        strata = [np.flatnonzero(self.strata == value) for value in np.unique(self.strata)]
        return [np.concatenate([generator.choice(rows, len(rows)) for rows in strata]) for _ in range(self.draws)]

    def values(self, statistic: Callable[[Ints], float]) -> F64:
        """`statistic` of the row numbers of every draw; draws where it is undefined are left out."""
        found = np.array([statistic(rows) for rows in self.rows()], dtype=np.float64)
        return found[np.isfinite(found)]


def _one_hot(names: list[str]) -> Mask:
    _, place = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    members: Mask = np.arange(place.max() + 1)[:, None] == place[None, :]
    return members
