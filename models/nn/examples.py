"""Training examples as image tokens: the frozen tower runs once per image and orientation, never in a training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contracts.model_manifest import Preprocessing
from models.runtime.base import Base
from models.runtime.image import Pixels
from models.runtime.preprocess import Roi, crop, preprocess

F16 = NDArray[np.float16]
WHOLE: Roi = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Examples:
    """`tokens` [N, V, T, C] in V orientations, the first as taken; `labels` [N] class numbers; `weights` [N]."""

    tokens: F16
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def spread(self, limit: int) -> Examples:
        """At most `limit` rows, evenly over the set."""
        if len(self) <= limit:
            return self
        rows = np.arange(limit) * len(self) // limit
        return Examples(self.tokens[rows], self.labels[rows], self.weights[rows])

    @staticmethod
    def join(parts: Sequence[Examples]) -> Examples:
        """One set after the other."""
        return Examples(
            tokens=np.concatenate([p.tokens for p in parts]),
            labels=np.concatenate([p.labels for p in parts]),
            weights=np.concatenate([p.weights for p in parts]),
        )


def orientations(pixels: Pixels, *, flips: bool) -> list[Pixels]:
    """The frame as taken and, where the part has no up and left, its three mirror images."""
    if not flips:
        return [pixels]
    return [np.ascontiguousarray(p) for p in (pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1])]


def frame_tokens(base: Base, pixels: Pixels, *, flips: bool, roi: Roi | None = None) -> F16:
    """Tokens [V, T, C] of one frame, by the exported tower that runs on the edge.

    Raises:
        WrongSize: the region of interest leaves nothing of the frame.
    """
    spec: Preprocessing = base.manifest.preprocessing
    part = crop(pixels, roi or spec.roi)  # before mirroring: in a mirror image the region lies on the other side
    batch = np.concatenate([preprocess(p, spec, roi=WHOLE) for p in orientations(part, flips=flips)])
    return base.tokens(batch).astype(np.float16)
