"""Which images may judge a cascade: each once, and none that either model was trained or calibrated on.

Copies are told by their bytes. The same part photographed twice, or an image that was encoded again, is not recognised:
keep those together by `group`, and out of the data where a model has learned them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.contracts.base import sha256_hex

if TYPE_CHECKING:
    from models.nn.starting import LabelledImage

OWN = ("memory", "gate")
"""Folders of a model, written by `train`: images it learned, and images its thresholds were set on."""


class TwoLabels(ValueError):
    """The same image has two labels. The text names both."""


@dataclass(frozen=True, slots=True)
class Judging:
    """Images that count, and how many were left out: further copies of one, and a model's own."""

    images: list[LabelledImage]
    copies: int
    own: int


def own_digests(folder: Path) -> set[str]:
    """SHA-256 of every image a model's folder keeps; empty for a folder without them.

    Raises:
        OSError: one cannot be read.
    """
    paths = (path for name in OWN for path in (folder / name).rglob("*") if path.name != "labels.csv")
    return {sha256_hex(path.read_bytes()) for path in paths if path.is_file()}


def judging(images: Sequence[LabelledImage], own: set[str]) -> Judging:
    """The images without those in `own`, each once.

    Raises:
        TwoLabels: copies of one image disagree.
    """
    kept: dict[str, LabelledImage] = {}
    copies = known = 0
    for image in images:
        digest = sha256_hex(image.data)
        if digest in own:
            known += 1
            continue
        first = kept.setdefault(digest, image)
        if first.label != image.label:
            where = " and ".join(f"{one.source or 'an image'} ({one.label})" for one in (first, image))
            raise TwoLabels(f"the same image has two labels: {where}; remove the wrong one")
        copies += first is not image
    return Judging(list(kept.values()), copies, known)
