"""Where to cut: the score from which a part is called defective, alike on every product, and what a person sees.

The cut is where both kinds of mistake cost the line the same. It is found by ranks on held-out images, so it does not
jump when a model is unsure and all its probabilities crowd around one value, and a better model gives fewer mistakes of
both kinds instead of trading one for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contracts.model_manifest import Thresholds

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
MIN_DOMAIN = 20
RIDGE = 0.05
FOLDS = 4


def cost_ratio(is_defect: Mask, *, escape_cost: float, overkill_cost: float) -> float:
    """What all defects missed cost over what all good parts rejected cost, at the set's share of defects.

    1 when the line states no costs: then both kinds weigh the same per class.
    """
    if escape_cost <= 0 or overkill_cost <= 0:
        return 1.0
    share = float(np.clip(is_defect.mean(), 0.01, 0.99))
    return escape_cost * share / (overkill_cost * (1 - share))


def balance_point(scores: NDArray[np.floating], is_defect: Mask, *, ratio: float = 1.0) -> float:
    """The cut c at which ``ratio * P(score < c | defect) = P(score >= c | good)``.

    With ratio 1 it is the equal error point. Both rates are counted on the images, the cut lies midway between two
    scores.

    Raises:
        ValueError: the images are all good or all defective.
    """
    if is_defect.all() or not is_defect.any():
        raise ValueError("a cut needs good and defective images")
    order = np.argsort(scores, kind="stable")
    ranked, defect = scores[order].astype(np.float64), is_defect[order]
    missed = np.concatenate([[0.0], np.cumsum(defect)]) / defect.sum()
    alarms = 1 - np.concatenate([[0.0], np.cumsum(~defect)]) / (~defect).sum()
    at = int(np.argmin(np.abs(ratio * missed - alarms)))  # the `at` lowest scores pass
    low = ranked[at - 1] if at > 0 else ranked[0] - 1.0
    high = ranked[at] if at < len(ranked) else ranked[-1] + 1.0
    return float((low + high) / 2)


@dataclass(frozen=True, slots=True)
class HeadShift:
    """What to add to a linear head: `weight` [C, D] and `bias` [C]."""

    weight: F32
    bias: F32


def align_domains(
    embedding: F32,
    logits: F32,
    labels: NDArray[np.int64],
    domains: Sequence[str | None],
    *,
    defects: Mask,
    ratio: float,
) -> HeadShift | None:
    """One cut for every domain (product, cell type), folded into the linear head.

    A head learned on several products tells good from defective within each, but its balance point lies elsewhere on
    each, and a release has one set of thresholds. The domain is read linearly from the embedding (ridge regression on
    its indicator), so "less of the defect logits on this product" is again a linear function of the embedding.

    Args:
        embedding: [N, D] of held-out images; `logits` [N, C] of the head to correct; `defects` [C].
        domains: N names; a domain with fewer than `MIN_DOMAIN` images or of one kind only is left alone.

    Returns:
        None when fewer than two domains can be told apart.
    """
    names, is_defect = np.array([name or "" for name in domains]), defects[labels]
    usable = [n for n in np.unique(names) if _usable(is_defect[names == n])]
    if len(usable) < 2:
        return None
    member = np.stack([names == n for n in usable], axis=1)
    weight, bias = _indicators(embedding.astype(np.float64), member)
    read = embedding @ weight.T + bias
    scores, total = defect_log_odds(logits, defects), np.zeros(len(usable))
    for _ in range(FOLDS):  # the indicator is soft, so one fold moves a domain by a little less than it should
        moved = scores - read @ total
        cuts = np.array([balance_point(moved[m], is_defect[m], ratio=ratio) for m in member.T])
        total = total + cuts - cuts.mean()
    share = np.where(defects, -1.0, 0.0)[:, None]
    return HeadShift((share * (total @ weight)).astype(np.float32), (share[:, 0] * (total @ bias)).astype(np.float32))


def _usable(is_defect: Mask) -> bool:
    return len(is_defect) >= MIN_DOMAIN and bool(is_defect.any()) and not bool(is_defect.all())


def defect_log_odds(logits: NDArray[np.floating], defects: Mask) -> F64:
    """``log sum exp(defect logits) - log sum exp(good logits)`` [N]; adding c to every defect logit adds c."""
    sides = [np.logaddexp.reduce(logits[:, side].astype(np.float64), axis=1) for side in (defects, ~defects)]
    return sides[0] - sides[1]


def _indicators(x: F64, member: Mask) -> tuple[F64, F64]:
    """Ridge regression of membership [N, K] on embeddings [N, D]: weight [K, D] and bias [K]."""
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    z, y = (x - mean) / std, member.astype(np.float64)
    centre = y.mean(axis=0)
    raw = np.linalg.solve(z.T @ z + RIDGE * len(x) * np.eye(x.shape[1]), z.T @ (y - centre)).T / std
    return raw, centre - raw @ mean


def fit_thresholds(
    defect_scores: F32, is_defect: Mask, *, ratio: float = 1.0, unsure_share: float = 0.06
) -> Thresholds:
    """Cuts on the calibrated defect score.

    `call_at` is the balance point. A person looks at the parts nearest to it, about `unsure_share` of all, half on each
    side.

    Args:
        defect_scores: [N] on held-out images of both kinds.

    Raises:
        ValueError: see `balance_point`.
    """
    call_at = float(np.clip(balance_point(defect_scores, is_defect, ratio=ratio), 0.0, 1.0))
    below, above = defect_scores[defect_scores < call_at], defect_scores[defect_scores >= call_at]
    wanted = unsure_share / 2 * len(defect_scores)
    low = float(np.quantile(below, max(0.0, 1 - wanted / len(below)))) if len(below) else call_at
    high = float(np.quantile(above, min(1.0, wanted / len(above)))) if len(above) else call_at
    return Thresholds(pass_below=min(low, call_at), reject_above=max(high, call_at), call_at=call_at)
