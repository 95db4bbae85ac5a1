from __future__ import annotations

import numpy as np
import pytest

from models.runtime.explain import Explanation, Place, find_place, overlay


def spot(row: int, column: int, *, size: int = 6) -> np.ndarray:
    found = np.full((size, size), 0.1, dtype=np.float32)
    found[row, column] = 1.0
    return found


@pytest.mark.parametrize(
    ("row", "column", "english", "chinese"),
    [
        (0, 0, "at the upper left", "左上部"),
        (5, 5, "at the lower right", "右下部"),
        (0, 3, "at the upper centre", "中上部"),
        (2, 2, "in the centre", "中央"),
        (3, 5, "at the middle right", "右中部"),
    ],
)
def test_a_spot_is_pointed_at_in_both_languages(row: int, column: int, english: str, chinese: str) -> None:
    place = find_place(spot(row, column))
    assert place is not None
    assert (place.words("en"), place.words("zh")) == (english, chinese)
    assert place.share == pytest.approx(1 / 36)


def test_the_strongest_neighbourhood_is_the_place_and_another_spot_is_not() -> None:
    evidence = spot(0, 0)
    evidence[0, 1] = evidence[1, 1] = 0.6
    evidence[5, 5] = 0.9
    place = find_place(evidence)
    assert place is not None
    assert place.share == pytest.approx(3 / 36)
    assert place.x < 1 / 3
    assert place.y < 1 / 3


@pytest.mark.parametrize("evidence", [np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)])
def test_no_evidence_and_evidence_everywhere_are_no_place(evidence: np.ndarray) -> None:
    assert find_place(evidence) is None


def test_sentences_are_grounded_in_the_figures() -> None:
    found = Explanation("reject", None, "scratch", 0.934, 0.97, Place(0.9, 0.1, 0.12))
    assert found.sentence() == (
        "Reject: scratch, 93% sure (defect score 0.97). The reasons lie at the upper right, on 12% of the view."
    )
    assert found.sentence("zh") == "剔除：scratch，置信度 93%（缺陷分数 0.97）。依据位于右上部，约占视野的 12%。"
    spread = Explanation("unsure", None, "good", 0.6, 0.4)
    assert spread.sentence().endswith("The reasons are spread over the view.")
    assert Explanation("unsure", "too_dark").sentence() == (
        "The frame cannot be judged (too_dark): a person must look."
    )


def test_the_overlay_lights_the_place_and_leaves_the_rest_alone() -> None:
    grey = np.full((60, 60), 100, dtype=np.uint8)
    evidence = np.zeros((6, 6), dtype=np.float32)
    evidence[0, 0] = 1.0
    picture = overlay(grey, Explanation("reject", None, "scratch", 0.9, 0.9, None, evidence), roi=None)
    assert picture.shape == (60, 60, 3)
    assert np.abs(picture[4, 4].astype(int) - 100).max() > 40
    assert np.abs(picture[40:, 40:].astype(int) - 100).max() <= 2
    half = overlay(grey, Explanation("unsure", "too_dark"), roi=(0.0, 0.0, 0.5, 0.5))
    assert half.shape == (30, 30, 3)
