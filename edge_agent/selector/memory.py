"""The last 256 uploads' directions: is this part one we have just sent?

Embeddings of one line share a large common part, and parts of a new product share another, so directions are compared
as seen from the mean of the parts inspected lately. Seen from anywhere else, such as the prototypes of an old product,
every part of a new one would be everyone's duplicate just when samples are wanted most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

REMEMBERED = 256
DUPLICATE_COSINE = 0.98
LEAST_SEEN = 16


class RecentUploads:
    """A ring of unit vectors with their sids. Directions of different models do not compare: `clear` on a swap."""

    def __init__(self, *, size: int = REMEMBERED) -> None:
        self._size = size
        self._rows: F32 | None = None
        self._centre: F32 | None = None
        self._seen = 0
        self._sids: list[str] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._sids)

    def clear(self) -> None:
        self._rows, self._centre, self._seen, self._sids, self._next = None, None, 0, [], 0

    def observe(self, direction: F32) -> None:
        """Count an inspected part, uploaded or not, into the centre (a running mean over the last `size`)."""
        if self._centre is None or self._centre.shape != direction.shape:
            self.clear()
            self._centre = np.zeros_like(direction, dtype=np.float32)
        self._seen = min(self._seen + 1, self._size)
        self._centre += (direction - self._centre) / np.float32(self._seen)

    def add(self, sid: str, direction: F32) -> None:
        """Remember an upload, forgetting the oldest beyond `size`."""
        if self._rows is None or self._rows.shape[1] != direction.shape[0]:
            self._rows = np.zeros((self._size, direction.shape[0]), dtype=np.float32)
            self._sids, self._next = [], 0
        self._rows[self._next] = direction
        if len(self._sids) < self._size:
            self._sids.append(sid)
        else:
            self._sids[self._next] = sid
        self._next = (self._next + 1) % self._size

    def duplicate_of(self, direction: F32) -> str | None:
        """The most similar remembered sid if its cosine exceeds `DUPLICATE_COSINE`.

        None until `LEAST_SEEN` parts were observed: there is no centre to compare from.
        """
        if self._rows is None or not self._sids or self._centre is None or self._seen < LEAST_SEEN:
            return None
        if self._rows.shape[1] != direction.shape[0]:
            return None
        cosines = unit(self._rows[: len(self._sids)] - self._centre) @ unit(direction - self._centre)
        best = int(cosines.argmax())
        return self._sids[best] if cosines[best] > DUPLICATE_COSINE else None


def unit(rows: F32) -> F32:
    """Rows scaled to length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12), dtype=np.float32)
