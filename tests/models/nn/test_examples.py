"""Tokens of a frame: a region is the same part of the line in every mirror image, and the one the box looks at."""

from __future__ import annotations

import numpy as np

from models.nn.examples import frame_tokens
from models.runtime.preprocess import preprocess
from tests.models.nn.toy import picture, toy


def test_a_region_is_cut_out_before_it_is_mirrored() -> None:
    base, part = toy().base, picture(1, defect=True)
    frame = np.concatenate([part, np.full_like(part, 255)], axis=1)
    found = frame_tokens(base, frame, flips=True, roi=(0.0, 0.0, 0.5, 1.0))
    np.testing.assert_array_equal(found, frame_tokens(base, part, flips=True))
    box = base.tokens(preprocess(frame, base.manifest.preprocessing, roi=(0.0, 0.0, 0.5, 1.0)))
    np.testing.assert_allclose(found[0], box[0], atol=1e-2)
