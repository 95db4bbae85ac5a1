"""The one preprocessing: training, gate and edge all call this function, so they cannot disagree.

Area resampling is chosen because it averages every source pixel: OpenCV's cubic and linear do not antialias when
they shrink, PIL's do, and the difference moves scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from models.contracts.model_manifest import Preprocessing
from models.runtime.image import Pixels

Roi = tuple[float, float, float, float]


class WrongSize(ValueError):
    """The region of interest leaves nothing of the frame."""


def crop(pixels: Pixels, roi: Roi | None) -> Pixels:
    """The region (x, y, width, height as fractions of the frame), at least one pixel each way.

    Raises:
        WrongSize: the region lies outside the frame or is smaller than a pixel.
    """
    if roi is None:
        return pixels
    height, width = pixels.shape[:2]
    left, top = round(roi[0] * width), round(roi[1] * height)
    right, bottom = round((roi[0] + roi[2]) * width), round((roi[1] + roi[3]) * height)
    part = pixels[top : min(bottom, height), left : min(right, width)]
    if part.size == 0:
        raise WrongSize(f"the region of interest {roi} leaves nothing of a {width} x {height} frame")
    return part


def preprocess(pixels: Pixels, spec: Preprocessing, *, roi: Roi | None = None) -> NDArray[np.float32]:
    """Grey [H, W] or RGB [H, W, 3] uint8 to float32 [1, 3, spec.height, spec.width].

    Args:
        roi: the line's region; it replaces the base's own.

    Raises:
        WrongSize: see `crop`.
    """
    part = crop(pixels, roi or spec.roi)
    if part.shape[:2] != (spec.height, spec.width):
        part = cv2.resize(part, (spec.width, spec.height), interpolation=cv2.INTER_AREA)
    if part.ndim == 2:
        part = np.repeat(part[:, :, None], 3, axis=2)
    mean, std = np.array(spec.mean, dtype=np.float32), np.array(spec.std, dtype=np.float32)
    return np.ascontiguousarray(((part.astype(np.float32) - mean) / std).transpose(2, 0, 1)[None])


def preprocess_batch(frames: Sequence[Pixels], spec: Preprocessing, *, roi: Roi | None = None) -> NDArray[np.float32]:
    """Frames of any size to one batch [N, 3, H, W]."""
    return np.concatenate([preprocess(frame, spec, roi=roi) for frame in frames])
