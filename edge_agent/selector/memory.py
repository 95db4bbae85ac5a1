"""The last 256 uploads' directions: is this part one we have just sent?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

REMEMBERED = 256
DUPLICATE_COSINE = 0.98


class RecentUploads:
    """A ring of unit vectors with their sids. Directions of different models do not compare: `clear` on a swap."""

    def __init__(self, *, size: int = REMEMBERED) -> None:
        self._size = size
        self._rows: F32 | None = None
        self._sids: list[str] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._sids)

    def clear(self) -> None:
        self._rows, self._sids, self._next = None, [], 0

    def add(self, sid: str, direction: F32) -> None:
        """Remember an upload, forgetting the oldest beyond `size`."""
        if self._rows is None or self._rows.shape[1] != direction.shape[0]:
            self.clear()
            self._rows = np.zeros((self._size, direction.shape[0]), dtype=np.float32)
        self._rows[self._next] = direction
        if len(self._sids) < self._size:
            self._sids.append(sid)
        else:
            self._sids[self._next] = sid
        self._next = (self._next + 1) % self._size

    def duplicate_of(self, direction: F32) -> str | None:
        """The most similar remembered sid if its cosine exceeds `DUPLICATE_COSINE`."""
        if self._rows is None or not self._sids or self._rows.shape[1] != direction.shape[0]:
            return None
        cosines = self._rows[: len(self._sids)] @ direction
        best = int(cosines.argmax())
        return self._sids[best] if cosines[best] > DUPLICATE_COSINE else None
