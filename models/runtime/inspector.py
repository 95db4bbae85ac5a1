"""A line's model, and the inspector that runs one while another is made ready.

`LineModel` is immutable: base, LoRA feeds, head, thresholds, prototypes. `Inspector` holds one reference to the
current model; a swap replaces the reference, and a frame reads it once, so no frame sees half of each.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.contracts.base import canonical, sha256_hex
from models.contracts.model_manifest import AdapterManifest, Thresholds
from models.contracts.sample import CannotJudge, Exposure, ModelRef
from models.runtime.adapter import read_adapter
from models.runtime.base import Base, Feeds
from models.runtime.heads import BadArrays, ClassHead, load_head, read_arrays
from models.runtime.image import Pixels, cannot_judge, measure_exposure
from models.runtime.preprocess import WrongSize, preprocess

F32 = NDArray[np.float32]


class WrongBase(ValueError):
    """The adapter release was made for another base."""


class GoldenMismatch(ValueError):
    """The golden frames do not come out as the publisher computed them."""


@dataclass(frozen=True, slots=True)
class LineModel:
    """Everything that turns a frame into scores. `prototypes` [P, D] and golden arrays are float32."""

    base: Base
    manifest: AdapterManifest
    manifest_sha: str
    release: int
    head: ClassHead
    lora: Feeds
    prototypes: F32
    golden_embedding: F32
    golden_probs: F32

    @property
    def thresholds(self) -> Thresholds:
        return self.manifest.thresholds

    def reference(self) -> ModelRef:
        """The digests that go into every envelope."""
        manifest = self.manifest
        return ModelRef(
            release=self.release,
            base=manifest.base,
            adapter=manifest.adapter.blob.sha256 if manifest.adapter else None,
            head=manifest.head.blob.sha256,
            thresholds=sha256_hex(canonical(manifest.thresholds.model_dump(mode="json"))),
            prototypes=manifest.refs.sha256,
        )


def load_model(
    base: Base, manifest: AdapterManifest, *, base_sha: str, blobs: dict[str, bytes], release: int
) -> LineModel:
    """A line's model from a verified manifest and verified blobs (by SHA-256).

    Args:
        base_sha: digest of the loaded base's manifest.
        release: the channel release under which it runs.

    Raises:
        WrongBase: made for another base.
        BadAdapter: see `read_adapter`.
        BadArrays: head, prototypes or golden outputs are not what the manifest says.
    """
    if manifest.base != base_sha:
        raise WrongBase(f"release {manifest.release} needs base {manifest.base[:12]}, loaded is {base_sha[:12]}")
    width, classes = base.manifest.embedding, len(manifest.head.classes)
    lora: dict[str, ort.OrtValue] = {}
    if manifest.adapter is not None:
        arrays = read_adapter(blobs[manifest.adapter.blob.sha256], base.manifest.lora)
        lora = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    refs = read_arrays(
        blobs[manifest.refs.sha256],
        {
            "prototypes": (None, width),
            "golden.embedding": (manifest.golden.count, width),
            "golden.probs": (manifest.golden.count, classes),
        },
    )
    if len(refs["prototypes"]) == 0:
        raise BadArrays("prototypes has no rows")
    return LineModel(
        base=base,
        manifest=manifest,
        manifest_sha=manifest.digest(),
        release=release,
        head=load_head(manifest.head, blobs[manifest.head.blob.sha256], embedding=width),
        lora=lora,
        prototypes=refs["prototypes"],
        golden_embedding=refs["golden.embedding"],
        golden_probs=refs["golden.probs"],
    )


def check_golden(model: LineModel, pixels: list[Pixels]) -> float:
    """Run the golden frames and compare with what the publisher computed.

    Args:
        pixels: the base's golden frames, `manifest.golden.count` of them.

    Returns:
        The largest difference of a class probability.

    Raises:
        GoldenMismatch: an embedding or probability off by more than the release's tolerance, or an adapter whose
            embeddings do not differ from the bare base by the distance it declares (it was not applied).
    """
    golden = model.manifest.golden
    if len(pixels) != golden.count:
        raise GoldenMismatch(f"the base has {len(pixels)} golden frames, the release expects {golden.count}")
    tokens = [
        model.base.tokens(preprocess(p, model.base.manifest.preprocessing, roi=model.manifest.roi)) for p in pixels
    ]
    embedding = np.concatenate([model.base.embed(t, model.lora).embedding for t in tokens])
    if not np.isfinite(embedding).all():
        raise GoldenMismatch("a golden frame gives NaN or infinite values")
    drift = float(np.abs(embedding - model.golden_embedding).max())
    if not drift <= golden.embedding_tolerance:
        raise GoldenMismatch(f"embeddings are off by {drift:.4f}, {golden.embedding_tolerance:.4f} allowed")
    probs = model.head.probabilities(embedding)
    worst = float(np.abs(probs - model.golden_probs).max())
    if not worst <= golden.prob_tolerance:
        raise GoldenMismatch(f"probabilities are off by {worst:.4f}, {golden.prob_tolerance:.4f} allowed")
    if model.manifest.adapter is not None:
        bare = np.concatenate([model.base.embed(t, {}).embedding for t in tokens])
        distance = float(np.linalg.norm(embedding - bare, axis=1).mean())
        if distance < golden.min_base_distance:
            raise GoldenMismatch(f"the adapter moves embeddings by {distance:.4f}: it was not applied")
    return worst


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the model says of one frame. Probabilities [C] and embedding [D] are None when it cannot be judged."""

    model: LineModel
    exposure: Exposure | None
    reason: CannotJudge | None
    latency_ms: float
    probabilities: F32 | None = None
    embedding: F32 | None = None
    tokens: F32 | None = field(default=None, repr=False)
    evidence: F32 | None = field(default=None, repr=False)

    def evidence_map(self) -> F32 | None:
        """Per patch 0..1, what spoke for the most probable class, row by row over `base.manifest.grid`."""
        if self.probabilities is None or self.evidence is None:
            return None
        return self.model.head.evidence(self.evidence, int(self.probabilities.argmax()))


def inspect(model: LineModel, pixels: Pixels) -> Inspection:
    """One frame through one model. Never raises for a bad frame: the reason is in the result."""
    start = time.perf_counter()

    def result(reason: CannotJudge | None, **found: F32) -> Inspection:
        elapsed = (time.perf_counter() - start) * 1e3
        return Inspection(model=model, exposure=exposure, reason=reason, latency_ms=elapsed, **found)

    exposure = measure_exposure(pixels, reference_mean=model.manifest.exposure.reference_mean)
    reason = cannot_judge(exposure, model.manifest.exposure)
    if reason is not None:
        return result(reason)
    try:
        prepared = preprocess(pixels, model.base.manifest.preprocessing, roi=model.manifest.roi)
    except WrongSize:
        return result(CannotJudge.WRONG_SIZE)
    tokens = model.base.tokens(prepared)
    output = model.base.embed(tokens, model.lora)
    probabilities = model.head.probabilities(output.embedding)[0]
    if not np.isfinite(probabilities).all():
        return result(CannotJudge.BAD_SCORES)
    return result(
        None, probabilities=probabilities, embedding=output.embedding[0], tokens=tokens, evidence=output.evidence[0]
    )


class Inspector:
    """Holds the current model and, for a while after a swap, the previous one for shadow comparison."""

    def __init__(self) -> None:
        self._current: LineModel | None = None
        self._previous: LineModel | None = None
        self._swapping = threading.Lock()

    @property
    def current(self) -> LineModel | None:
        """The model a frame that starts now would use."""
        return self._current

    @property
    def previous(self) -> LineModel | None:
        return self._previous

    def swap(self, model: LineModel) -> float:
        """Make `model` current and keep the old one as previous; returns the pause in milliseconds."""
        with self._swapping:
            start = time.perf_counter()
            self._previous, self._current = self._current, model
            return (time.perf_counter() - start) * 1e3

    def revert(self) -> bool:
        """Back to the previous model; False when there is none."""
        with self._swapping:
            if self._previous is None:
                return False
            self._current, self._previous = self._previous, None
            return True

    def drop(self) -> None:
        """No model any more, neither this one nor the previous."""
        with self._swapping:
            self._current = self._previous = None

    def settle(self) -> None:
        """Forget the previous model: its memory is free once no frame uses it."""
        with self._swapping:
            self._previous = None
