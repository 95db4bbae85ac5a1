from __future__ import annotations

import numpy as np
import pytest

from models.contracts.model_manifest import Preprocessing
from models.runtime.preprocess import WrongSize, crop, preprocess, preprocess_batch

SPEC = Preprocessing(width=4, height=2, mean=(10, 20, 30), std=(2, 4, 5))


def test_every_source_pixel_counts_when_it_shrinks() -> None:
    pixels = np.zeros((4, 8), dtype=np.uint8)
    pixels[0, 0] = 200
    first = preprocess(pixels, SPEC)[0, 0, 0, 0]
    assert first == pytest.approx((50 - 10) / 2)  # the mean of a 2 x 2 block, normalised


def test_grey_becomes_three_channels_with_their_own_scale() -> None:
    out = preprocess(np.full((2, 4), 110, dtype=np.uint8), SPEC)
    assert out.shape == (1, 3, 2, 4)
    assert out.dtype == np.float32
    assert out[0, :, 0, 0].tolist() == [50.0, 22.5, 16.0]


def test_colour_keeps_rgb_order() -> None:
    pixels = np.zeros((2, 4, 3), dtype=np.uint8)
    pixels[..., 0] = 12
    assert preprocess(pixels, SPEC)[0, :, 0, 0].tolist() == [1.0, -5.0, -6.0]


def test_the_lines_region_replaces_the_bases() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    spec = SPEC.model_copy(update={"roi": (0.0, 0.0, 0.5, 0.5)})
    assert not np.array_equal(preprocess(pixels, spec), preprocess(pixels, spec, roi=(0.5, 0.5, 0.5, 0.5)))


@pytest.mark.parametrize("roi", [(1.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.0, 1.0), (0.5, 0.5, 0.001, 0.001)])
def test_a_region_that_leaves_nothing_is_a_wrong_size(roi: tuple[float, float, float, float]) -> None:
    with pytest.raises(WrongSize, match="leaves nothing"):
        crop(np.zeros((10, 10), dtype=np.uint8), roi)


def test_a_batch_is_its_frames() -> None:
    frames = [np.full((2, 4), 10, dtype=np.uint8), np.full((6, 3), 90, dtype=np.uint8)]
    batch = preprocess_batch(frames, SPEC)
    assert np.array_equal(batch[1:], preprocess(frames[1], SPEC))
