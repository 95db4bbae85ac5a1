"""From stored images to training examples: the frozen tower runs once per image and base, its tokens are kept on disk.

Images that cannot be read or judged teach nothing: they are left out and counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.contracts.base import canonical, sha256_hex
from models.nn.examples import Examples, frame_tokens
from models.runtime.base import Base
from models.runtime.image import Unreadable, decode_image
from models.runtime.preprocess import Roi, WrongSize

F16 = NDArray[np.float16]
Read = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Item:
    """One image to learn from: digest, class number, weight, how to get its bytes, and its product if known."""

    sha256: str
    label: int
    weight: float
    read: Read
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Under which conditions tokens were computed; part of their name on disk."""

    base_sha: str
    flips: bool
    roi: Roi | None

    def folder(self) -> str:
        return sha256_hex(canonical([self.base_sha, self.flips, self.roi]))[:32]


class TokenShelf:
    """Tokens by image digest, one file each. A file that is damaged is computed again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, base: Base, view: View, sha256: str, read: Read) -> F16 | None:
        """Tokens [V, T, C], or None for an image that cannot be read or is too small for the region of interest."""
        path = self._folder / view.folder() / sha256[:2] / f"{sha256}.npy"
        kept = _load(path)
        if kept is not None:
            return kept
        try:
            pixels = decode_image(read(sha256))
            tokens = frame_tokens(base, pixels, flips=view.flips, roi=view.roi)
        except (Unreadable, WrongSize):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.save(file, tokens)
        part.replace(path)
        return tokens


def _load(path: Path) -> F16 | None:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What came of a list of items. `domains` has one entry per example."""

    examples: Examples
    domains: list[str | None]
    unreadable: int


def gather(
    shelf: TokenShelf, base: Base, view: View, items: Iterable[Item], *, beat: Callable[[], None] = lambda: None
) -> Gathered:
    """Examples of all items that can be read; weights are scaled to mean 1."""
    tokens: list[F16] = []
    kept: list[Item] = []
    unreadable = 0
    for item in items:
        beat()
        found = shelf.get(base, view, item.sha256, item.read)
        if found is None:
            unreadable += 1
            continue
        tokens.append(found)
        kept.append(item)
    manifest = base.manifest
    shape = (0, 4 if view.flips else 1, manifest.grid[0] * manifest.grid[1], manifest.token_width)
    weights = np.array([item.weight for item in kept], dtype=np.float32)
    examples = Examples(
        tokens=np.stack(tokens) if tokens else np.zeros(shape, dtype=np.float16),
        labels=np.array([item.label for item in kept], dtype=np.int64),
        weights=weights / weights.mean() if len(weights) else weights,
    )
    return Gathered(examples, [item.domain for item in kept], unreadable)
