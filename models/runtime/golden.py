"""The golden frames of a base: what every box runs before it activates a release.

The file of role ``golden`` is safetensors with one uint8 array ``frames``, [G, H, W] grey or [G, H, W, 3] RGB; a
release uses the first ``golden.count`` of them.
"""

from __future__ import annotations

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.runtime.image import Pixels


class BadGolden(ValueError):
    """The file of golden frames is not one."""


def pack_golden(frames: list[Pixels]) -> bytes:
    """Frames of one size to the file's bytes."""
    return save({"frames": np.stack(frames)})


def read_golden(data: bytes) -> list[Pixels]:
    """Golden frames from their file.

    Raises:
        BadGolden: not safetensors with one uint8 array ``frames`` of three or four dimensions.
    """
    try:
        arrays = load(data)
    except (SafetensorError, ValueError) as fault:
        raise BadGolden(f"golden frames are unreadable: {fault}") from fault
    frames = arrays.get("frames")
    if frames is None or frames.dtype != np.uint8 or frames.ndim not in (3, 4):
        raise BadGolden("golden frames must be one uint8 array named frames, [G, H, W] or [G, H, W, 3]")
    return [np.ascontiguousarray(frame) for frame in frames]
