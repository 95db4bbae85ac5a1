"""Scores of a line's model over labelled images: the same pixels, preprocessing, graphs and head as on a box.

The tower does not depend on the adapter, so a frame's tokens are computed once per base and kept; two adapters are then
compared for the price of the trunk. Nothing here says what is good enough.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.lines.schemas import ReferenceImage
from models.contracts.model_manifest import ExposureLimits, Thresholds
from models.contracts.sample import Exposure
from models.runtime.base import Base
from models.runtime.heads import ClassHead
from models.runtime.image import Unreadable, cannot_judge, decode_image, measure_exposure
from models.runtime.inspector import LineModel, inspect
from models.runtime.preprocess import WrongSize, preprocess

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Roi = tuple[float, float, float, float] | None
BATCH = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """What a base's tower sees of one image. `tokens` [N, C] is None when the image cannot be used."""

    exposure: Exposure | None
    tokens: F32 | None


class TokenCache:
    """Frames by (base, region, image), the least recently used dropped beyond `max_bytes`. For one thread."""

    def __init__(self, *, max_bytes: int = 512 << 20) -> None:
        self._frames: OrderedDict[tuple[str, Roi, str], Frame] = OrderedDict()
        self._max_bytes, self._bytes = max_bytes, 0

    def frame(self, base: Base, roi: Roi, sha: str, read: Callable[[str], bytes]) -> Frame:
        """The frame, computed when it is not here. `read` gives an image's bytes by digest."""
        key = (base.sha256, roi, sha)
        if key not in self._frames:
            self._frames[key] = made = _frame(base, roi, read(sha))
            self._bytes += 0 if made.tokens is None else made.tokens.nbytes
            while self._bytes > self._max_bytes and len(self._frames) > 1:
                _, dropped = self._frames.popitem(last=False)
                self._bytes -= 0 if dropped.tokens is None else dropped.tokens.nbytes
        self._frames.move_to_end(key)
        return self._frames[key]


def _frame(base: Base, roi: Roi, data: bytes) -> Frame:
    try:
        pixels = decode_image(data)
    except Unreadable:
        return Frame(None, None)
    exposure = measure_exposure(pixels)
    try:
        prepared = preprocess(pixels, base.manifest.preprocessing, roi=roi)
    except WrongSize:
        return Frame(exposure, None)
    return Frame(exposure, base.tokens(prepared)[0])


@dataclass(frozen=True, slots=True)
class Scores:
    """A model's word on N images. Rows that could not be judged are NaN.

    `probabilities` [N, C] in the head's class order, `embedding` [N, D], `shift` [N] the distance of the embedding
    from the bare base's, zero for a model without an adapter.
    """

    probabilities: F32
    embedding: F32
    shift: F32

    @property
    def judged(self) -> Mask:
        """[N]: which images have usable scores."""
        return np.asarray(np.isfinite(self.probabilities).all(axis=1), dtype=np.bool_)


def score(
    model: LineModel, images: Sequence[ReferenceImage], read: Callable[[str], bytes], cache: TokenCache,
    *, beat: Callable[[], None] = lambda: None,
) -> Scores:  # fmt: skip
    """Run `model` over `images`.

    Args:
        beat: called between batches; may raise to stop.
    """
    n, width = len(images), model.base.manifest.embedding
    embedding = np.full((n, width), np.nan, dtype=np.float32)
    bare = embedding.copy()
    for start in range(0, n, BATCH):
        beat()
        frames = [
            cache.frame(model.base, model.manifest.roi, image.sha256, read) for image in images[start : start + BATCH]
        ]
        usable = [(start + i, f.tokens) for i, f in enumerate(frames) if _usable(f, model.manifest.exposure)]
        if not usable:
            continue
        rows, tokens = [i for i, _ in usable], np.stack([t for _, t in usable if t is not None])
        embedding[rows] = model.base.embed(tokens, model.lora).embedding
        bare[rows] = model.base.embed(tokens, {}).embedding if model.lora else embedding[rows]
    return Scores(_probabilities(model.head, embedding), embedding, np.linalg.norm(embedding - bare, axis=1))


def _usable(frame: Frame, limits: ExposureLimits) -> bool:
    return frame.tokens is not None and frame.exposure is not None and cannot_judge(frame.exposure, limits) is None


def _probabilities(head: ClassHead, embedding: F32) -> F32:
    found = np.full((len(embedding), len(head.classes)), np.nan, dtype=np.float32)
    fine = np.isfinite(embedding).all(axis=1)
    if fine.any():
        found[fine] = head.probabilities(embedding[fine])
    return found


@dataclass(frozen=True, slots=True)
class Calls:
    """What a box would do with N images, in the LINE's class order. Images that could not be judged go to a person.

    `predicted` [N] class index of the forced call or -1; `defect_score` [N]; `called_defect`, `passed`, `rejected`
    [N]; `confidence` [N] the calibrated probability that the forced call is right.
    """

    predicted: Ints
    defect_score: F64
    called_defect: Mask
    passed: Mask
    rejected: Mask
    confidence: F64
    judged: Mask


def call(scores: Scores, head: ClassHead, thresholds: Thresholds, classes: Sequence[str]) -> Calls:
    """Turn scores into calls by the release's own thresholds.

    The forced call is "defect" iff the defect score reaches `call_at`; the class is the most probable one on the side
    of the call. A class of the line that the head does not know is simply never predicted.
    """
    judged = scores.judged
    probabilities = np.where(judged[:, None], scores.probabilities, 0).astype(np.float64)
    defect = head.defect_mask
    total = probabilities[:, defect].sum(axis=1)
    called = judged & (total >= thresholds.call_at)
    side = np.where(called[:, None], defect[None, :], ~defect[None, :])
    best = np.where(side, probabilities, -1.0).argmax(axis=1)
    place = np.array([_place(spec.name, classes) for spec in head.classes], dtype=np.int64)
    return Calls(
        predicted=np.where(judged, place[best], -1),
        defect_score=np.where(judged, total, np.nan),
        called_defect=called,
        passed=judged & (total < thresholds.pass_below),
        rejected=judged & (total >= thresholds.reject_above),
        confidence=np.where(judged, np.where(called, total, 1 - total), np.nan),
        judged=judged,
    )


def _place(name: str, classes: Sequence[str]) -> int:
    return list(classes).index(name) if name in classes else -1


def latency_ms(
    model: LineModel, images: Sequence[ReferenceImage], read: Callable[[str], bytes], *, frames: int = 30
) -> F64:
    """Milliseconds per frame of the whole path from pixels to scores, one frame at a time, after one to warm up."""
    found: list[float] = []
    for image in images[: frames + 1]:
        try:
            pixels = decode_image(read(image.sha256))
        except Unreadable:
            continue
        start = time.perf_counter()
        inspect(model, pixels)
        found.append((time.perf_counter() - start) * 1e3)
    return np.array(found[1:] or found, dtype=np.float64)
