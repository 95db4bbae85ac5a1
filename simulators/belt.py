"""A belt that drops pictures of parts into a folder, for a folder camera: real images, each a little changed.

Images come in order of their names, again from the start when they run out, and every showing is another picture of
the same part. A file appears whole: it is written beside and renamed.
"""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np

from simulators.camera import change, encode_png

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


class NoImages(ValueError):
    """Nothing to show. The text says where was looked."""


def run_belt(images: Path, into: Path, *, every_s: float, count: int, seed: int, stop: threading.Event) -> int:
    """Show `count` parts (0: until `stop`), one every `every_s` seconds; returns how many were shown.

    Raises:
        NoImages: the folder has no readable image.
    """
    sources = sorted(path for path in images.glob("*") if path.suffix.lower() in SUFFIXES)
    if not sources:
        raise NoImages(f"{images} has no image ({', '.join(sorted(SUFFIXES))})")
    into.mkdir(parents=True, exist_ok=True)
    shown = 0
    while not stop.is_set() and (count == 0 or shown < count):
        source = sources[shown % len(sources)]
        pixels = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise NoImages(f"{source} cannot be read as an image")
        moved = change(np.asarray(pixels, dtype=np.uint8), seed=seed * 1_000_003 + shown)
        target = into / f"{shown:06d}-{source.stem}.png"
        unfinished = target.with_suffix(".png.tmp")
        unfinished.write_bytes(encode_png(moved))
        unfinished.rename(target)
        shown += 1
        stop.wait(every_s)
    return shown
