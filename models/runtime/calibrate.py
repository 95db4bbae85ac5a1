"""Turning raw logits into numbers a factory can act on: temperature, class shift, thresholds.

Everything is fitted on images the model never trained on, at their natural class shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contracts.model_manifest import Thresholds
from models.runtime.heads import softmax

F32 = NDArray[np.float32]
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
MAX_NEWTON = 50
MIN_DOMAIN = 20
RIDGE = 0.05


class _Fit:
    """``-log p + penalty`` of ``u = theta[0] z + theta[1:]`` with its Newton step; theta is [1 + C]."""

    def __init__(self, z: NDArray[np.float64], labels: NDArray[np.int64], *, slope_strength: float = 2.0) -> None:
        count, classes = z.shape
        self.z, self.labels, self.onehot = z, labels, np.eye(classes)[labels]
        self.prior = np.concatenate([[1.0], np.zeros(classes)])
        self.strength = np.concatenate([[slope_strength], np.full(classes, 0.5)])
        constant = np.broadcast_to(np.eye(classes), (count, classes, classes))
        self.features = np.concatenate([z[:, :, None], constant], axis=2)

    def _p(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        return softmax(theta[0] * self.z + theta[1:])

    def loss(self, theta: NDArray[np.float64]) -> float:
        p = self._p(theta)[np.arange(len(self.labels)), self.labels]
        penalty = 0.5 * float((self.strength * (theta - self.prior) ** 2).sum())
        return float(-np.log(np.maximum(p, 1e-300)).sum()) + penalty

    def newton(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        p = self._p(theta)
        gradient = np.einsum("nc,ncf->f", p - self.onehot, self.features) + self.strength * (theta - self.prior)
        mean = np.einsum("nc,ncf->nf", p, self.features)
        second = np.einsum("nc,ncf,ncg->fg", p, self.features, self.features) - mean.T @ mean
        return np.linalg.solve(second + np.diag(self.strength), gradient)

    def solve(self) -> NDArray[np.float64]:
        """Newton's method; a step is halved while it would leap over the minimum."""
        theta = self.prior
        for _ in range(MAX_NEWTON):
            step, size = self.newton(theta), 1.0
            while self.loss(theta - size * step) > self.loss(theta) and size > 1e-6:
                size /= 2
            theta = theta - size * step
            if float(np.abs(size * step).max()) < 1e-6:
                break
        return theta


@dataclass(frozen=True, slots=True)
class Calibration:
    """``softmax((z + shift) / temperature)``; `shift` [C] is added to the head's bias by the publisher."""

    temperature: float
    shift: F32


def fit_calibration(logits: F32, labels: NDArray[np.int64]) -> Calibration:
    """Temperature and per-class shift by penalised maximum likelihood.

    Temperature scaling is Guo et al. (ICML 2017); the shift undoes the class balance of training, as prior correction
    does (Saerens et al., Neural Computation 2002). Newton's method with halved steps on ``u = a z + b``, with a weak
    prior towards ``a = 1, b = 0``, so few or one-sided labels cannot push it to infinity.

    Args:
        logits: [N, C] before temperature.
        labels: [N] class numbers.
    """
    theta = _Fit(logits.astype(np.float64), labels).solve()
    slope = float(np.clip(theta[0], 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE))
    return Calibration(temperature=1 / slope, shift=(theta[1:] / slope).astype(np.float32))


@dataclass(frozen=True, slots=True)
class HeadShift:
    """What to add to a linear head: `weight` [C, D] and `bias` [C]."""

    weight: F32
    bias: F32


def fit_domain_shift(
    embedding: F32, logits: F32, labels: NDArray[np.int64], domains: Sequence[str | None]
) -> HeadShift | None:
    """One operating point per domain (product, cell type), folded into the linear head.

    A head learned on several products tells good from defective within each, but its zero lies elsewhere on each, and a
    release has one set of thresholds. Per domain a class shift is fitted as in `fit_calibration`, the domain itself is
    read linearly from the embedding (ridge regression on its indicator), and the sum of shift times indicator is again
    a linear function of the embedding. Every domain is put to the class shares of the whole set: how many defects its
    own images happen to hold says how the set was collected, not how the line runs.

    Args:
        embedding: [N, D] of held-out images; `logits` [N, C] of the head to correct.
        domains: N names; domains with fewer than `MIN_DOMAIN` images or one label only are left alone.

    Returns:
        None when fewer than two domains can be told apart.
    """
    names = np.array([name or "" for name in domains])
    usable = [
        n for n in np.unique(names) if (names == n).sum() >= MIN_DOMAIN and len(np.unique(labels[names == n])) > 1
    ]
    if len(usable) < 2:
        return None
    whole = fit_calibration(logits, labels)
    calibrated = ((logits + whole.shift) / np.float32(whole.temperature)).astype(np.float64)
    prior = _log_shares(labels, logits.shape[1])
    rows = [
        _Fit(calibrated[names == n], labels[names == n], slope_strength=1e6).solve()[1:]
        + prior
        - _log_shares(labels[names == n], logits.shape[1])
        for n in usable
    ]
    shifts = np.stack(rows) * whole.temperature
    weight, bias = _indicators(embedding.astype(np.float64), np.stack([names == n for n in usable], axis=1))
    return HeadShift((shifts.T @ weight).astype(np.float32), (shifts.T @ bias).astype(np.float32))


def _log_shares(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    counts = np.bincount(labels, minlength=classes) + 0.5
    return np.log(counts / counts.sum())


def _indicators(x: NDArray[np.float64], member: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ridge regression of membership [N, K] on embeddings [N, D]: weight [K, D] and bias [K]."""
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    z, y = (x - mean) / std, member.astype(np.float64)
    centre = y.mean(axis=0)
    ridge = RIDGE * len(x) * np.eye(x.shape[1])
    raw = np.linalg.solve(z.T @ z + ridge, z.T @ (y - centre)).T / std
    return raw, centre - raw @ mean


def fit_thresholds(
    defect_scores: F32,
    is_defect: NDArray[np.bool_],
    *,
    escape_cost: float = 0.0,
    overkill_cost: float = 0.0,
    unsure_share: float = 0.06,
) -> Thresholds:
    """Cuts on the calibrated defect score.

    `call_at` is the Bayes decision ``c_overkill / (c_overkill + c_escape)`` when the line states its costs. Without
    costs a missed defect and a false alarm weigh the same per class, which puts it at the share of defects. A person
    looks at the parts nearest to it, about `unsure_share` of all, half on each side.

    Args:
        defect_scores: [N] on held-out images at natural class shares.
    """
    if escape_cost > 0 and overkill_cost > 0:
        call_at = overkill_cost / (overkill_cost + escape_cost)
    else:
        call_at = float(is_defect.mean())
    call_at = float(np.clip(call_at, 0.02, 0.98))
    below, above = defect_scores[defect_scores < call_at], defect_scores[defect_scores >= call_at]
    wanted = unsure_share / 2 * len(defect_scores)
    low = float(np.quantile(below, max(0.0, 1 - wanted / len(below)))) if len(below) else call_at
    high = float(np.quantile(above, min(1.0, wanted / len(above)))) if len(above) else call_at
    return Thresholds(pass_below=min(low, call_at), reject_above=max(high, call_at), call_at=call_at)
