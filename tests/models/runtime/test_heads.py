from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from models.contracts.model_manifest import ClassSpec
from models.runtime.heads import (
    BadArrays,
    load_head,
    pack_head,
    random_projection,
    read_arrays,
    softmax,
    with_temperature,
)

CLASSES = [
    ClassSpec(name="good", defect=False),
    ClassSpec(name="crack", defect=True),
    ClassSpec(name="dirt", defect=True),
]
WEIGHT = np.array([[1, 0], [0, 1], [0, 2]], dtype=np.float32)
BIAS = np.array([0, 0, 0.5], dtype=np.float32)


def head(kind: str, **fields: object):
    spec, data = pack_head(WEIGHT, BIAS, kind=kind, classes=CLASSES, **fields)
    return load_head(spec, data, embedding=2)


def test_a_linear_head_is_a_matrix_product() -> None:
    assert head("linear").logits(np.array([[2, 3]], dtype=np.float32)).tolist() == [[2, 3, 6.5]]


def test_a_cosine_head_ignores_length() -> None:
    cosine = head("cosine", scale=4.0)
    short, long = (np.array([[k, 0]], dtype=np.float32) for k in (0.1, 10))
    assert cosine.logits(short)[0] == pytest.approx([4, 0, 0.5])
    assert np.allclose(cosine.logits(short), cosine.logits(long))


def test_a_ridge_head_projects_first_with_a_reproducible_matrix() -> None:
    weight = np.ones((3, 5), dtype=np.float32)
    fields = {"kind": "ridge", "classes": CLASSES, "projection_seed": 9, "projection_width": 5}
    spec, data = pack_head(weight, BIAS, **fields)
    embedding = np.array([[1, -1]], dtype=np.float32)
    expected = np.maximum(embedding @ random_projection(9, 2, 5), 0).sum() + BIAS
    assert load_head(spec, data, embedding=2).logits(embedding)[0] == pytest.approx(expected)


def test_probabilities_sum_to_one_and_temperature_flattens_them() -> None:
    sharp = head("linear")
    embedding = np.array([[5, 1]], dtype=np.float32)
    probabilities = sharp.probabilities(embedding)
    assert probabilities.sum() == pytest.approx(1)
    assert with_temperature(sharp, 10.0).probabilities(embedding).max() < probabilities.max()
    assert sharp.defect_scores(probabilities)[0] == pytest.approx(probabilities[0, 1:].sum())


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([[1000, 0]], dtype=np.float32)).tolist() == [[1.0, 0.0]]


def test_evidence_points_at_the_patch_that_spoke() -> None:
    shares = np.array([[0, 0], [0, 3], [1, 0]], dtype=np.float32)
    assert head("linear").evidence(shares, 2).argmax() == 1
    assert head("linear").evidence(np.zeros((3, 2), dtype=np.float32), 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"weight": WEIGHT}, "expected"),
        ({"weight": WEIGHT, "bias": BIAS, "extra": BIAS}, "expected"),
        ({"weight": WEIGHT[:2], "bias": BIAS}, "weight is"),
        ({"weight": WEIGHT.astype(np.float64), "bias": BIAS}, "float64"),
        ({"weight": np.full_like(WEIGHT, np.nan), "bias": BIAS}, "NaN"),
        ({"weight": WEIGHT, "bias": np.full_like(BIAS, np.inf)}, "infinite"),
    ],
)
def test_arrays_are_checked_before_use(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BadArrays, match=message):
        read_arrays(save(arrays), {"weight": (3, 2), "bias": (3,)})


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, save({"weight": WEIGHT})[:-5]])
def test_broken_files_are_bad_arrays(data: bytes) -> None:
    with pytest.raises(BadArrays):
        read_arrays(data, {"weight": (3, 2)})
