"""How likely a stored sample joins the queue that estimates: pure arithmetic.

A label weighs 1 / pi, and pi is small for the parts the selector found easy: a coin that is alike for all leaves a few
heavy labels to carry the estimate. So the coin is proportional to ``1 / sqrt(pi_select * pi_survive)``, which evens the
weights and leaves more of the hard parts to the queue that trains. It stays within `FLOOR` and 1, and on average within
the share of samples that a person configured.

The average is kept by one factor per line, solved over the sample itself and the line's newest `RECENT` stored ones so
that their clipped probabilities have that mean; while what arrives keeps its kind, the mean over all samples is then
the share. Any factor fixed before the toss gives honest labels: the probability used is recorded with the task, and it
depends on stored rows and the sample's own pi alone, never on a toss. Left out: the toss (`cloud.ingest.rules.place`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

RECENT = 256
FLOOR = 0.05
LEAST_UPLOAD = 1e-6
"""Below it a pi counts as this: one box's claim, or a product that underflows to 0, must not bend the line's coin."""


def label_probability(upload: float, recent: Iterable[float], *, share: float) -> float:
    """The probability with which a sample joins the estimation queue.

    Args:
        upload: ``pi_select * pi_survive`` of the sample, in (0, 1].
        recent: the same of the line's newest stored samples, in any order; none for the first.
        share: mean to keep, in (0, 1]. At `FLOOR` and below the coin is the same for every sample.
    """
    weights = np.maximum(np.array([upload, *recent], dtype=np.float64), LEAST_UPLOAD) ** -0.5
    floor = min(FLOOR, share)
    return float(min(max(_factor(weights, share=share, floor=floor) * weights[0], floor), 1.0))


def _factor(weights: NDArray[np.float64], *, share: float, floor: float) -> float:
    """The c with ``mean(clip(c * weights, floor, 1)) == share``: linear between the corners where a weight is cut."""
    ordered = np.sort(weights)
    below = np.concatenate(([0.0], np.cumsum(ordered)))
    corners = np.sort(np.concatenate((floor / ordered, 1 / ordered)))
    first, last = np.searchsorted(ordered, floor / corners), np.searchsorted(ordered, 1 / corners)
    means = (floor * first + corners * (below[last] - below[first]) + len(ordered) - last) / len(ordered)
    return float(np.interp(share, means, corners))
