"""Calibration: raw logits to probabilities that mean what they say. Thresholds are in `operating_point`.

Everything is fitted on images the model never trained on, at their natural class shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.runtime.heads import softmax

F32 = NDArray[np.float32]
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
MAX_NEWTON = 50


class _Fit:
    """``-log p + penalty`` of ``u = theta[0] z + theta[1:]`` with its Newton step; theta is [1 + C]."""

    def __init__(self, z: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        count, classes = z.shape
        self.z, self.labels, self.onehot = z, labels, np.eye(classes)[labels]
        self.prior = np.concatenate([[1.0], np.zeros(classes)])
        self.strength = np.concatenate([[2.0], np.full(classes, 0.5)])
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
