"""How hard a part was for its model: margin, novelty, disagreement, and their weighted sum u.

    u = 0.5 (1 - margin) + 0.35 novelty + 0.15 disagreement

A term that is not available is None and its weight goes to the others in proportion. Novelty is the percentile of the
part's distance to its nearest prototype among the prototypes' own nearest-neighbour distances: 1 means further away
than any prototype is from the rest. Disagreement is the total variation distance between what the current and the
previous head say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.selector.memory import unit
from models.runtime.heads import ClassHead

F32 = NDArray[np.float32]

MARGIN_WEIGHT, NOVELTY_WEIGHT, DISAGREEMENT_WEIGHT = 0.5, 0.35, 0.15
MIN_PROTOTYPES = 8
MAX_REFERENCE_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Terms:
    """Each 0..1 or None. `direction` is the unit vector by which near duplicates are recognised [D]."""

    margin: float | None = None
    novelty: float | None = None
    disagreement: float | None = None
    direction: F32 | None = None

    @property
    def hardness(self) -> float | None:
        """u, or None when no term is available."""
        weighted = [
            (MARGIN_WEIGHT, None if self.margin is None else 1 - self.margin),
            (NOVELTY_WEIGHT, self.novelty),
            (DISAGREEMENT_WEIGHT, self.disagreement),
        ]
        known = [(weight, value) for weight, value in weighted if value is not None]
        if not known:
            return None
        total = sum(weight for weight, _ in known)
        return min(max(sum(weight * value for weight, value in known) / total, 0.0), 1.0)


class Prototypes:
    """A release's prototypes as a measure of novelty."""

    def __init__(self, rows: F32) -> None:
        """Args: rows [P, D]; they are scaled to unit length."""
        self._rows = unit(rows)
        self._reference = self._own_distances()

    def _own_distances(self) -> NDArray[np.float64] | None:
        """Each prototype's cosine distance to its nearest other one, sorted; None when there are too few."""
        step = -(-len(self._rows) // MAX_REFERENCE_ROWS)
        rows = self._rows[::step]
        if len(rows) < MIN_PROTOTYPES:
            return None
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, -1.0)
        return np.sort(1.0 - cosines.max(axis=1).astype(np.float64))

    def novelty(self, embedding: F32) -> float | None:
        """Percentile 0..1 of an embedding [D]; None when there are fewer than `MIN_PROTOTYPES`."""
        if self._reference is None:
            return None
        distance = 1.0 - float((self._rows @ unit(embedding)).max())
        return float(np.searchsorted(self._reference, distance, side="right")) / len(self._reference)


def total_variation(first: F32, second: F32) -> float:
    """Half the L1 distance of two distributions over the same classes, 0..1."""
    return float(min(max(0.5 * np.abs(first - second).sum(), 0.0), 1.0))


def disagreement(current: ClassHead, previous: ClassHead | None, *, embedding: F32, probabilities: F32) -> float | None:
    """Between the current probabilities and the previous head's on the same embedding.

    None when there is no previous head or it knows other classes or another embedding width.
    """
    if previous is None or [c.name for c in previous.classes] != [c.name for c in current.classes]:
        return None
    inputs = previous.projection.shape[0] if previous.projection is not None else previous.weight.shape[1]
    if inputs != embedding.shape[-1]:
        return None
    return total_variation(probabilities, previous.probabilities(embedding[None])[0])
