"""Experts in 4 and 8 bits: how near they come, how they are packed, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from models.nn.blockwise import dequantized_blocks, quantize_blocks

WEIGHT = np.random.default_rng(0).normal(0, 0.02, (3, 5, 64)).astype(np.float32)


@pytest.mark.parametrize(("bits", "steps"), [(8, 127), (4, 7)])
def test_no_weight_is_further_off_than_one_step_of_its_block(bits: int, steps: int) -> None:
    off = np.abs(dequantized_blocks(WEIGHT, bits=bits, block=16) - WEIGHT).reshape(3, 5, 4, 16)
    largest = np.abs(WEIGHT).reshape(3, 5, 4, 16).max(axis=-1, keepdims=True)
    assert (off <= largest / steps).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_weight_of_a_block_is_kept_exactly(bits: int) -> None:
    parts = WEIGHT.reshape(3, 5, 4, 16)
    at = np.abs(parts).argmax(axis=-1)[..., None]
    kept = dequantized_blocks(WEIGHT, bits=bits, block=16).reshape(parts.shape)
    assert np.allclose(np.take_along_axis(kept, at, -1), np.take_along_axis(parts, at, -1), rtol=1e-6)


def test_two_codes_share_a_byte_with_the_even_input_in_the_low_half() -> None:
    blocks = quantize_blocks(WEIGHT, bits=4, block=16)
    assert blocks.codes.shape == (3, 5, 32)
    assert blocks.scales.shape == (3, 5, 4)
    codes = np.stack([blocks.codes & 15, blocks.codes >> 4], axis=-1).reshape(WEIGHT.shape).astype(np.float32)
    back = (codes - 8) * np.repeat(blocks.scales, 16, axis=-1)
    assert np.array_equal(back, dequantized_blocks(WEIGHT, bits=4, block=16))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_block_of_zeros_stays_zero(bits: int) -> None:
    weight = WEIGHT.copy()
    weight[0, 0, :16] = 0
    assert not dequantized_blocks(weight, bits=bits, block=16)[0, 0, :16].any()


def test_other_widths_and_broken_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="4 or 8 bits, not 3"):
        quantize_blocks(WEIGHT, bits=3, block=16)
    with pytest.raises(ValueError, match="64 inputs are no multiple of a block of 48"):
        quantize_blocks(WEIGHT, bits=8, block=48)
