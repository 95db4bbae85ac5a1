"""Image bytes to pixels, and how good the frame is. Foreign bytes: the header is read before anything is decoded.

A frame that cannot be judged is a result, not an error: the caller keeps it with its reason.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.contracts.model_manifest import ExposureLimits
from models.contracts.sample import CannotJudge, Exposure

MAX_PIXELS = 64 << 20
Pixels = NDArray[np.uint8]


class Unreadable(ValueError):
    """The bytes are no image this program takes. The text says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes claim. `type` is a media type."""

    type: str
    width: int
    height: int


def _png(data: bytes) -> Header | None:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return Header("image/png", *struct.unpack(">II", data[16:24]))


def _bmp(data: bytes) -> Header | None:
    if data[:2] != b"BM" or len(data) < 26:
        return None
    width, height = struct.unpack("<ii", data[18:26])
    return Header("image/bmp", width, abs(height))


def _jpeg(data: bytes) -> Header | None:
    """Walk the segments up to the frame header (ITU-T T.81, B.1.1.3): markers C0-CF but C4, C8, CC."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return Header("image/jpeg", width, height)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def read_header(data: bytes) -> Header:
    """Type and size from the first bytes, without decoding.

    Raises:
        Unreadable: not PNG, JPEG or BMP, or larger than 64 Mpixel: a decompression bomb or the wrong camera mode.
    """
    header = _png(data) or _jpeg(data) or _bmp(data)
    if header is None:
        raise Unreadable("not a PNG, JPEG or BMP image")
    if not 0 < header.width * header.height <= MAX_PIXELS or min(header.width, header.height) < 1:
        raise Unreadable(f"{header.width} x {header.height} pixels; at most {MAX_PIXELS >> 20} Mpixel are decoded")
    return header


def decode_image(data: bytes) -> Pixels:
    """Bytes to grey [H, W] or RGB [H, W, 3] uint8. Deeper images are scaled to 8 bits; alpha is dropped.

    Raises:
        Unreadable: see `read_header`, or the decoder gave up.
    """
    read_header(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as fault:
        raise Unreadable(f"the decoder gave up: {fault.err}") from fault
    if image is None:
        raise Unreadable("the image is truncated or corrupt")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise Unreadable(f"{image.dtype} pixels are not supported")
    if image.ndim == 2:
        return image
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[:, :, 0])
    code = cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)


def measure_exposure(pixels: Pixels, *, reference_mean: float | None = None) -> Exposure:
    """Mean and standard deviation in grey levels, sharpness as the variance of the Laplacian.

    Sharpness is taken on a copy of at most 512 pixels' longest side, so cameras of any resolution compare.
    """
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    longest = max(grey.shape)
    if longest > 512:
        ratio = 512 / longest
        height, width = (max(1, round(side * ratio)) for side in grey.shape)  # a frame of one row keeps it
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    mean, deviation = (float(v[0, 0]) for v in cv2.meanStdDev(grey))
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    shift = None if reference_mean is None else abs(mean - reference_mean)
    return Exposure(mean=mean, contrast=deviation, sharpness=sharpness, shift=shift)


def cannot_judge(exposure: Exposure, limits: ExposureLimits) -> CannotJudge | None:
    """The reason this frame should not be judged, or None."""
    if exposure.mean < limits.min_mean:
        return CannotJudge.TOO_DARK
    if exposure.mean > limits.max_mean:
        return CannotJudge.TOO_BRIGHT
    if exposure.contrast < limits.min_contrast:
        return CannotJudge.NO_CONTRAST
    return None
