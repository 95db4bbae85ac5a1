"""One hour's release: adapt, mix with the incumbent, calibrate, set thresholds, pack, and measure parity.

The validation images choose the mixing share, the temperature and the thresholds; they are never trained on. All of it
is computed on the exported int8 base with the adapter as it will travel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from models.contracts.model_manifest import ClassSpec, ExposureLimits, Lineage
from models.nn.adapt import AdaptSettings, adapt
from models.nn.config import EdgeConfig
from models.nn.examples import Examples
from models.nn.lora import interpolate
from models.nn.model import DeepSeekEdge
from models.nn.package import Packed, Parts, adapter_bytes, feeds_of, pack_release
from models.nn.parity import compare
from models.runtime.base import Base, Feeds
from models.runtime.calibrate import fit_calibration
from models.runtime.heads import load_head, softmax
from models.runtime.image import Pixels
from models.runtime.operating_point import align_domains, cost_ratio, fit_thresholds
from models.runtime.preprocess import Roi
from models.runtime.prototypes import find_prototypes

F32 = NDArray[np.float32]
PARITY_FRAMES = 24
PROTOTYPES_PER_CLASS = 16
PROTOTYPE_FRAMES = 300


@dataclass(frozen=True, slots=True)
class Costs:
    """What a missed defect and a false alarm cost, in the line's currency; both 0 when the line did not say."""

    escape: float = 0.0
    overkill: float = 0.0


@dataclass(frozen=True, slots=True)
class ReleaseSettings:
    """`shares` of the new adapter tried against the previous one, best on validation wins; ties go to the larger."""

    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    shares: tuple[float, ...] = (1.0, 0.5)
    unsure_share: float = 0.06


@dataclass(frozen=True, slots=True)
class Identity:
    """What the release is called and what it is bound to."""

    base_sha: str
    line: str
    release: int
    lineage: Lineage
    created_at: datetime
    roi: Roi | None = None
    exposure: ExposureLimits = field(default_factory=ExposureLimits)

    @property
    def model_version(self) -> str:
        """Shown to people."""
        return f"{self.line}-r{self.release}"


@dataclass(frozen=True, slots=True)
class Made:
    """A packed release and what was measured while making it."""

    packed: Packed
    metrics: dict[str, float]


def embed_onnx(base: Base, tokens: NDArray[np.float16], feeds: Feeds, *, batch: int = 16) -> F32:
    """Tokens [N, T, C] to embeddings [N, D] by the exported trunk."""
    parts = [
        base.embed(tokens[i : i + batch].astype(np.float32), feeds).embedding for i in range(0, len(tokens), batch)
    ]
    return np.concatenate(parts)


def log_loss(logits: F32, labels: NDArray[np.int64]) -> float:
    """Mean over classes of the mean negative log probability, so that a rare class counts as much as a common one."""
    p = softmax(logits)[np.arange(len(labels)), labels]
    losses = -np.log(np.maximum(p, 1e-9))
    return float(np.mean([losses[labels == c].mean() for c in np.unique(labels)]))


def assemble(
    base: Base,
    classes: list[ClassSpec],
    *,
    lora: dict[str, F32] | None,
    feeds: Feeds,
    head: tuple[F32, F32],
    validation: Examples,
    domains: Sequence[str | None] = (),
    seen: Examples,
    costs: Costs,
    settings: ReleaseSettings,
    exposure: ExposureLimits,
    seed: int,
) -> Parts:
    """Calibrate and set thresholds on `validation` (whose products are `domains`), find prototypes in `seen`."""
    weight, bias = head
    defects = np.array([spec.defect for spec in classes])
    is_defect = defects[validation.labels]
    ratio = cost_ratio(is_defect, escape_cost=costs.escape, overkill_cost=costs.overkill)
    embedding = embed_onnx(base, validation.tokens[:, 0], feeds)
    if domains:
        logits = embedding @ weight.T + bias
        moved = align_domains(embedding, logits, validation.labels, domains, defects=defects, ratio=ratio)
        if moved is not None:
            weight, bias = weight + moved.weight, bias + moved.bias
    logits = embedding @ weight.T + bias
    calibration = fit_calibration(logits, validation.labels)
    probabilities = softmax((logits + calibration.shift) / np.float32(calibration.temperature))
    thresholds = fit_thresholds(
        probabilities[:, defects].sum(axis=1), is_defect, ratio=ratio, unsure_share=settings.unsure_share
    )
    prototypes = find_prototypes(
        embed_onnx(base, seen.tokens[:, 0], feeds), seen.labels, per_class=PROTOTYPES_PER_CLASS, seed=seed
    )
    return Parts(
        classes=classes, lora=lora, weight=weight, bias=bias, calibration=calibration, thresholds=thresholds,
        prototypes=prototypes, exposure=exposure,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lesson:
    """Everything a release learns from.

    `start` is the incumbent's LoRA as graph inputs, None for a new lineage. `domains` names the product of every
    validation image; empty when there is only one. `words` [C, D] are the classes' own words where the base has a
    language: what a class nobody has labelled yet is recognised by.
    """

    new: Examples
    memory: Examples
    validation: Examples
    golden: Sequence[Pixels]
    classes: list[ClassSpec]
    costs: Costs
    start: dict[str, F32] | None
    domains: Sequence[str | None] = ()
    words: F32 | None = None


def make_release(
    base: Base,
    model: DeepSeekEdge,
    lesson: Lesson,
    identity: Identity,
    *,
    settings: ReleaseSettings,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Made:
    """Learn, and pack what was learned. Progress goes from 0 to 1."""
    adapted = adapt(
        model, new=lesson.new, memory=lesson.memory, classes=len(lesson.classes), start=lesson.start,
        settings=settings.adapt, seed=seed, words=lesson.words, progress=lambda share: progress(0.7 * share),
    )  # fmt: skip
    lora, share = _mixed(
        base, adapted.lora, (adapted.weight, adapted.bias), lesson=lesson, settings=settings, config=model.config
    )
    progress(0.8)
    feeds = feeds_of(base.manifest, adapter_bytes(lora, release=identity.release))
    seen = Examples.join([lesson.memory, lesson.new])
    parts = assemble(
        base, lesson.classes, lora=lora, feeds=feeds, head=(adapted.weight, adapted.bias),
        validation=lesson.validation, domains=lesson.domains, seen=_cut(seen, PROTOTYPE_FRAMES, seed),
        costs=lesson.costs, settings=settings, exposure=identity.exposure, seed=seed,
    )  # fmt: skip
    packed = pack(base, parts, identity, golden=lesson.golden, rank=model.config.lora_rank)
    progress(0.9)
    head = load_head(
        packed.manifest.head, packed.blobs[packed.manifest.head.blob.sha256], embedding=base.manifest.embedding
    )
    frames = _cut(lesson.validation, PARITY_FRAMES, seed).tokens[:, 0]
    parity = compare(
        base, model, head, frames, lora=lora, feeds=feeds, device=settings.adapt.device,
    )  # fmt: skip
    metrics = {
        "parity": parity.max_probability,
        "parity_agreement": parity.agreement,
        "parity_embedding": parity.embedding,
        "loss_first": float(np.mean(adapted.losses[:5])),
        "loss_last": float(np.mean(adapted.losses[-5:])),
        "steps": float(len(adapted.losses)),
        "share_new": share,
        "bytes": float(packed.size),
        "labels": float(len(lesson.new)),
    }
    return Made(packed, metrics)


def pack(base: Base, parts: Parts, identity: Identity, *, golden: Sequence[Pixels], rank: int) -> Packed:
    """`pack_release` under this identity."""
    return pack_release(
        base, parts, base_sha=identity.base_sha, line=identity.line, release=identity.release,
        model_version=identity.model_version, golden=golden, lineage=identity.lineage, rank=rank,
        created_at=identity.created_at, roi=identity.roi,
    )  # fmt: skip


def _cut(examples: Examples, limit: int, seed: int) -> Examples:
    if len(examples) <= limit:
        return examples
    rows = np.sort(np.random.default_rng(seed).choice(len(examples), limit, replace=False))
    return Examples(examples.tokens[rows], examples.labels[rows], examples.weights[rows])


def _mixed(
    base: Base,
    new: dict[str, F32],
    head: tuple[F32, F32],
    *,
    lesson: Lesson,
    settings: ReleaseSettings,
    config: EdgeConfig,
) -> tuple[dict[str, F32], float]:
    """The mix of new and previous adapter with the lowest class-balanced loss on validation, and its share."""
    old = lesson.start
    if old is None or settings.shares == (1.0,):
        return new, 1.0
    judged = _cut(lesson.validation, 160, 0)
    scored: list[tuple[float, float, dict[str, F32]]] = []
    for share in settings.shares:
        mix = new if share == 1.0 else interpolate(new, old, share, config)
        embedding = embed_onnx(base, judged.tokens[:, 0], feeds_of(base.manifest, adapter_bytes(mix, release=1)))
        scored.append((log_loss(embedding @ head[0].T + head[1], judged.labels), share, mix))
    _, share, mix = min(scored, key=lambda row: (row[0], -row[1]))
    return mix, share
