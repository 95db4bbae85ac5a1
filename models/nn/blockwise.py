"""Routed experts in 4 or 8 bits, one scale per block of inputs: the numbers ONNX Runtime's QMoE multiplies with.

    weight[e, n, k] ~ (code[e, n, k] - zero) * scale[e, n, k // block],   zero = 8 (4 bits) or 128 (8 bits)

8 bits are symmetric: ``scale = max |w| / 127``. 4 bits have one step more below zero than above; the scale is the
block's value of largest size divided by -8, so that this value takes the longer side and all 16 steps are used, as
ONNX Runtime's own `MatMulNBitsQuantizer` does. Two 4-bit codes share a byte, the even input in the low half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Blocks:
    """`codes` [E, N, K * bits / 8] as they are stored, and `scales` [E, N, K / block]."""

    codes: U8
    scales: F32


def quantize_blocks(weight: F32, *, bits: int, block: int) -> Blocks:
    """Weights [E, N, K] of E experts, N outputs and K inputs.

    Raises:
        ValueError: `bits` is neither 4 nor 8, or K is not a multiple of `block`.
    """
    codes, scales = _codes(weight, bits=bits, block=block)
    flat = codes.reshape(weight.shape)
    return Blocks(flat if bits == 8 else flat[..., 0::2] | (flat[..., 1::2] << 4), scales)


def dequantized_blocks(weight: F32, *, bits: int, block: int) -> F32:
    """What the kernel multiplies with, [E, N, K]: adapters are trained against this, so they repair it too.

    Raises:
        ValueError: see `quantize_blocks`.
    """
    codes, scales = _codes(weight, bits=bits, block=block)
    return ((codes.astype(np.float32) - _zero(bits)) * scales[..., None]).reshape(weight.shape)


def _zero(bits: int) -> int:
    return 1 << (bits - 1)


def _codes(weight: F32, *, bits: int, block: int) -> tuple[U8, F32]:
    """Codes [E, N, K / block, block] and scales [E, N, K / block]."""
    if bits not in (4, 8):
        raise ValueError(f"experts are stored in 4 or 8 bits, not {bits}")
    experts, outputs, inputs = weight.shape
    if inputs % block:
        raise ValueError(f"{inputs} inputs are no multiple of a block of {block}")
    parts = weight.reshape(experts, outputs, inputs // block, block)
    if bits == 8:
        scales, lowest = np.abs(parts).max(axis=-1) / np.float32(127), 1
    else:
        largest = np.abs(parts).argmax(axis=-1)[..., None]
        scales, lowest = np.take_along_axis(parts, largest, axis=-1)[..., 0] / np.float32(-8), 0
    scales = np.where(scales != 0, scales, np.float32(1)).astype(np.float32)
    codes = np.rint(parts / scales[..., None]) + _zero(bits)
    return np.clip(codes, lowest, (1 << bits) - 1).astype(np.uint8), scales
