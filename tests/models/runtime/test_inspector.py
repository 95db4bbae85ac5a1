from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from models.contracts.model_manifest import TensorSpec
from models.contracts.sample import CannotJudge
from models.runtime.adapter import BadAdapter
from models.runtime.base import BadBase, Base
from models.runtime.heads import BadArrays
from models.runtime.inspector import (
    GoldenMismatch,
    Inspector,
    LineModel,
    WrongBase,
    check_golden,
    inspect,
    load_model,
)
from tests.models.runtime.tiny import TinyRelease, opened, part, tiny_base, tiny_release


def loaded(release: TinyRelease, *, number: int = 1, blobs: dict[str, bytes] | None = None) -> LineModel:
    return load_model(
        opened(), release.manifest, base_sha=tiny_base().sha, blobs=blobs or release.blobs, release=number
    )


def test_a_release_inspects_and_says_what_judged() -> None:
    release = tiny_release()
    found = inspect(loaded(release, number=7), part(1))
    assert found.reason is None
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert found.evidence_map().shape == (tiny_base().manifest.grid[0] ** 2,)
    reference = found.model.reference()
    assert (reference.release, reference.base) == (7, tiny_base().sha)
    assert reference.adapter == release.manifest.adapter.blob.sha256


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((40, 40), dtype=np.uint8), CannotJudge.TOO_DARK),
        (np.full((40, 40), 90, dtype=np.uint8), CannotJudge.NO_CONTRAST),
    ],
)
def test_a_bad_frame_is_a_result(pixels: np.ndarray, reason: CannotJudge) -> None:
    found = inspect(loaded(tiny_release()), pixels)
    assert (found.reason, found.probabilities) == (reason, None)


def test_a_region_outside_the_frame_is_wrong_size() -> None:
    model = loaded(tiny_release())
    manifest = model.manifest.model_copy(update={"roi": (0.9999, 0.9999, 0.0001, 0.0001)})
    assert inspect(replace(model, manifest=manifest), part(1)).reason is CannotJudge.WRONG_SIZE


def test_nan_scores_are_a_result() -> None:
    model = loaded(tiny_release())
    head = replace(model.head, weight=np.full_like(model.head.weight, np.nan))
    assert inspect(replace(model, head=head), part(1)).reason is CannotJudge.BAD_SCORES


def test_the_wrong_base_is_refused() -> None:
    with pytest.raises(WrongBase, match="needs base"):
        load_model(opened(), tiny_release(base_seed=1).manifest, base_sha=tiny_base().sha, blobs={}, release=1)


def test_nan_weights_are_refused() -> None:
    with pytest.raises(BadAdapter, match="NaN"):
        loaded(tiny_release(nan=True))


def test_a_damaged_head_is_refused() -> None:
    release = tiny_release()
    blobs = release.blobs | {release.manifest.head.blob.sha256: b"damaged"}
    with pytest.raises(BadArrays):
        loaded(release, blobs=blobs)


def test_golden_frames_come_out_as_published() -> None:
    assert check_golden(loaded(tiny_release()), list(tiny_base().frames)) < 1e-3


def test_another_computation_is_a_golden_mismatch() -> None:
    with pytest.raises(GoldenMismatch, match="embeddings are off"):
        check_golden(loaded(tiny_release(golden_offset=1.0)), list(tiny_base().frames))


def test_other_probabilities_are_a_golden_mismatch() -> None:
    model = loaded(tiny_release())
    head = replace(model.head, bias=model.head.bias + np.array([0, 3], dtype=np.float32))
    with pytest.raises(GoldenMismatch, match="probabilities are off"):
        check_golden(replace(model, head=head), list(tiny_base().frames))


def test_an_adapter_that_was_not_applied_is_found_out() -> None:
    model = loaded(tiny_release())
    bare = np.concatenate([inspect(replace(model, lora={}), frame).embedding[None] for frame in tiny_base().frames])
    probs = model.head.probabilities(bare)
    with pytest.raises(GoldenMismatch, match="was not applied"):
        check_golden(replace(model, lora={}, golden_embedding=bare, golden_probs=probs), list(tiny_base().frames))


def test_the_number_of_golden_frames_must_agree() -> None:
    with pytest.raises(GoldenMismatch, match="the base has 1"):
        check_golden(loaded(tiny_release()), list(tiny_base().frames[:1]))


def test_a_base_that_is_not_its_manifest_is_refused() -> None:
    base = tiny_base()
    specs = [*base.manifest.lora, TensorSpec(name="nowhere.lora_A", shape=[1, 1])]
    manifest = base.manifest.model_copy(update={"lora": specs})
    with pytest.raises(BadBase, match="nowhere"):
        Base(manifest, tower=base.bytes_of("tower"), trunk=base.bytes_of("trunk"))


def test_swap_keeps_the_previous_model_until_settled_and_reverts() -> None:
    inspector, first, second = Inspector(), loaded(tiny_release()), loaded(tiny_release(2, seed=2))
    inspector.swap(first)
    assert not inspector.revert()
    assert inspector.swap(second) < 50
    assert (inspector.current, inspector.previous) == (second, first)
    assert inspector.revert()
    assert (inspector.current, inspector.previous) == (first, None)
    inspector.swap(second)
    inspector.settle()
    assert inspector.previous is None


def test_no_frame_sees_half_of_each_model_while_models_are_swapped() -> None:
    inspector, pixels = Inspector(), part(4)
    models = [loaded(tiny_release(n, seed=n), number=n) for n in (1, 2)]
    truth = {model.release: inspect(model, pixels).probabilities for model in models}
    inspector.swap(models[0])
    wrong: list[int] = []
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            found = inspect(inspector.current, pixels)
            seen.add(found.model.release)
            if not np.array_equal(found.probabilities, truth[found.model.release]):
                wrong.append(found.model.release)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(200):
        inspector.swap(models[i % 2])
        threading.Event().wait(0.002)
    done.set()
    for thread in threads:
        thread.join(10)
    assert not wrong
    assert seen == {1, 2}
