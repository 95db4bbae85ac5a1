"""How a linear is stored in int8, per preset: plainly, or with more for the two linears that int8 hurts most.

``plain``: every linear W8A8, weights per output channel, activations per token. `nano` and all bases built before there
was a choice have it.

``fine`` spends a little time where the error is (measured by `models.nn.sensitivity`; the same two that llama.cpp's
mixed types keep at more bits):

- ``down_proj`` reads SwiGLU's product, whose few large values take the steps of all others. Input and weight are
  rotated by the same orthogonal matrix, block by block (a Hadamard matrix: QuaRot, Ashkboos et al. 2024), which
  spreads a large value over its block and leaves the product as it was.
- ``v_proj``'s weight error is the same for every token, so attention does not average it away. In every second layer
  its weights have a second int8 plane for what the first left over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Int8 = Literal["plain", "fine"]
ROTATED = 32
"""Inputs a rotation mixes at most. Blocks of 16 to 512 have the same error within a tenth; 64 takes twice the time."""
PLANE = 254
"""Steps of the second plane in one of the first, whose rounding leaves at most half a step either way."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Of one linear: whether its inputs are rotated, and how many int8 planes its weight has (1 or 2)."""

    rotated: bool = False
    planes: int = 1


PLAIN = Recipe()
_FINE = {"down_proj": Recipe(rotated=True), "v_proj": Recipe(planes=2)}
SECOND_PLANE_EVERY = 2
"""Of that many layers one ``v_proj`` has a second plane. In every layer it costs 4 % of the trunk's time more for an
error of 3.88 instead of 4.00 %; in none the error is 4.46 %, above the best peer's 4.36 % (six layers, random
weights)."""


def recipe_for(int8: Int8, module: str) -> Recipe:
    """Of a linear of the trunk by its torch name."""
    if int8 == "plain":
        return PLAIN
    recipe = _FINE.get(module.rpartition(".")[2], PLAIN)
    return PLAIN if recipe.planes > 1 and _layer(module) % SECOND_PLANE_EVERY else recipe


def _layer(module: str) -> int:
    return int(module.partition("layers.")[2].partition(".")[0])


def block_of(inputs: int) -> int:
    """Size of a rotation's blocks: the largest power of two up to `ROTATED` that divides the inputs."""
    return min(inputs & -inputs, ROTATED)


def hadamard(size: int) -> F32:
    """The symmetric orthogonal Hadamard matrix of a power of two (Sylvester's construction), its own inverse."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron(matrix, [[1, 1], [1, -1]])
    return (matrix / np.sqrt(size)).astype(np.float32)


def rotated(weight: F32) -> F32:
    """A weight [inputs, outputs] for rotated inputs; applied twice it is the weight again."""
    size = block_of(weight.shape[0])
    blocks = weight.reshape(-1, size, weight.shape[1])
    return (hadamard(size) @ blocks).reshape(weight.shape)


def quantize_weight(weight: F32) -> tuple[NDArray[np.int8], F32]:
    """Symmetric int8 per output channel.

    Args:
        weight: [inputs, outputs].

    Returns:
        int8 [inputs, outputs] and float32 [outputs], with ``weight ~ int8 * scale``.
    """
    scale = np.abs(weight).max(axis=0) / np.float32(127)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def planes(weight: F32, recipe: Recipe) -> list[tuple[NDArray[np.int8], F32]]:
    """What is stored: codes [inputs, outputs] and scales [outputs] of each plane, whose sum is the (rotated) weight."""
    weight = rotated(weight) if recipe.rotated else weight
    codes, scale = quantize_weight(weight)
    found = [(codes, scale)]
    if recipe.planes == 2:
        finer = scale / np.float32(PLANE)
        rest = np.rint((weight - codes.astype(np.float32) * scale) / finer)
        found.append((np.clip(rest, -127, 127).astype(np.int8), finer))
    return found


def dequantized(weight: F32, recipe: Recipe = PLAIN) -> F32:
    """What a quantized linear multiplies with: adapters are trained against this, so they repair it too."""
    first, *others = (codes.astype(np.float32) * scale for codes, scale in planes(weight, recipe))
    total = sum(others, start=first)
    return rotated(total) if recipe.rotated else total
