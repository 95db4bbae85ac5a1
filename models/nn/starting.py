"""A line's first model from labelled images: base, release and a report; or a refusal that says what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from models.contracts.base import Manifest
from models.contracts.model_manifest import ClassSpec, ExposureLimits, Lineage
from models.nn.checkpoint import IMAGENET_NAME, save_checkpoint
from models.nn.config import TRAINABLE, EdgeConfig, preset
from models.nn.examples import Examples, frame_tokens
from models.nn.model import DeepSeekEdge
from models.nn.package import BuiltBase, Packed, build_base, feeds_of, preprocessing_of
from models.nn.parity import compare
from models.nn.pretrain import PretrainSettings, first_head, fit_standardise, new_model, pretrain
from models.nn.release import Costs, Identity, ReleaseSettings, assemble, embed_onnx, pack
from models.runtime.base import Base
from models.runtime.heads import load_head
from models.runtime.image import Pixels, Unreadable, decode_image, measure_exposure
from models.runtime.intervals import upper_bound
from models.runtime.preprocess import Roi, preprocess_batch

MIN_PER_CLASS = 10
MIN_VALIDATION_PER_CLASS = 5
GOLDEN_FRAMES = 6
GOLDEN_SIDE = 256
EXPOSURE_ROOM = 0.5
STANDARDISE_FRAMES = 128
VERSION = "0.1.0"

Say = Callable[[str], None]


class CannotTrain(ValueError):
    """The images do not allow a model that could be trusted. The text lists what is missing."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """`group` is the unit that must stay in one set (a module, a lot); `domain` the product or cell type.

    `source` is what a person would look for when the image is bad: its path.
    """

    data: bytes
    label: str
    domain: str | None = None
    group: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Starting:
    """`base` with its files, the torch `checkpoint` that adapters train on, the `release`, and the `report`."""

    base: BuiltBase
    checkpoint: bytes
    release: Packed
    report: dict[str, float]


@dataclass(frozen=True, slots=True)
class StartingSettings:
    """`number`: of the release. `flips`: the part looks as valid mirrored. `roi`: the line's region, fractions of the
    frame.
    """

    preset: str = "nano"
    family: str = "nano"
    version: int = 1
    number: int = 1
    flips: bool = True
    roi: Roi | None = None
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    release: ReleaseSettings = field(default_factory=ReleaseSettings)
    costs: Costs = field(default_factory=Costs)


def check_enough(images: Sequence[LabelledImage], classes: Sequence[ClassSpec], *, least: int, what: str) -> None:
    """Refuse sets that cannot teach or judge every class.

    Raises:
        CannotTrain: one line per class that lacks images, or an unknown label.
    """
    names = [spec.name for spec in classes]
    if unknown := sorted({image.label for image in images} - set(names)):
        raise CannotTrain(f"the label {unknown[0]!r} is no class of the line; it has: {', '.join(names)}")
    have = {name: sum(image.label == name for image in images) for name in names}
    if lacking := [f"{name}: {n} of at least {least}" for name, n in have.items() if n < least]:
        raise CannotTrain(f"too few {what} images: " + "; ".join(lacking))


def hold_out(images: Sequence[LabelledImage], *, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on and to validate on, whole groups together; images without a group stand alone."""
    groups: dict[str, list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(image.group if image.group is not None else f"image {i}", []).append(i)
    order = np.random.default_rng(seed).permutation(sorted(groups))
    wanted, held = share * len(images), []
    for name in order:
        if len(held) < wanted and len(held) + len(groups[name]) < len(images):
            held += groups[name]
    chosen = set(held)
    return [i for i in range(len(images)) if i not in chosen], sorted(held)


def split(
    images: Sequence[LabelledImage], *, share: float, seed: int
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Images to train on and to hold out: `hold_out` with the first of 200 seeds that leaves both sets every class.

    Raises:
        CannotTrain: no cut of whole groups does; a class lies in one group.
    """
    names = {image.label for image in images}
    for attempt in range(200):
        learn, held = hold_out(images, share=share, seed=seed * 1000 + attempt)
        if {images[i].label for i in learn} == names == {images[i].label for i in held}:
            return [images[i] for i in learn], [images[i] for i in held]
    raise CannotTrain(
        "no part of the groups can be held out that has every class: collect each class from several groups"
    )


def certifiable(*, missed: int, defects: int, wanted: float = 0.005) -> str:
    """What may be claimed about escapes: the exact one-sided 95 % bound (Clopper and Pearson, Biometrika 1934).

    With no miss it is ``1 - 0.05 ** (1 / n)``, so 598 defects certify 0.5 %.
    """
    high = upper_bound(missed, defects)
    needed = ceil(log(0.05) / log(1 - wanted)) - defects
    claim = f"{missed} of {defects} held-out defects were missed: the escape rate is at most {high:.1%} (95 %)."
    if high <= wanted:
        return claim
    if missed:
        return f"{claim} {wanted:.1%} cannot be certified with misses at this number of defects."
    return f"{claim} {wanted:.1%} is not certifiable yet: {needed} more defects without a miss are needed."


def check_preset(name: str) -> None:
    """Refuse a size whose tower has no weights here.

    Raises:
        CannotTrain: naming the sizes that can be trained.
        ValueError: no such preset.
    """
    if preset(name).name not in TRAINABLE:
        raise CannotTrain(
            f"preset {name} needs a published checkpoint for its vision tower, which this program does not have: the "
            f"tower would stay random. Presets that can be trained: {', '.join(TRAINABLE)}"
        )


def decoded(images: Sequence[LabelledImage]) -> list[Pixels]:
    """Every image's pixels.

    Raises:
        CannotTrain: naming the one that cannot be read.
    """
    pixels = []
    for i, image in enumerate(images):
        try:
            pixels.append(decode_image(image.data))
        except Unreadable as fault:
            name = image.source or f"image {i + 1} ({image.label})"
            raise CannotTrain(f"{name} cannot be read: {fault}; remove or replace it") from fault
    return pixels


def tokenize(base: Base, frames: Sequence[Pixels], labels: NDArray[np.int64], settings: StartingSettings) -> Examples:
    """Examples with weight 1 from decoded frames."""
    rows = [frame_tokens(base, frame, flips=settings.flips, roi=settings.roi) for frame in frames]
    return Examples(np.stack(rows), labels, np.ones(len(labels), dtype=np.float32))


def exposure_limits(frames: Sequence[Pixels]) -> ExposureLimits:
    """What counts as a frame that can be judged: half the darkest to midway from the brightest to white."""
    measured = [measure_exposure(frame) for frame in frames]
    means = [m.mean for m in measured]
    return ExposureLimits(
        min_mean=min(means) * EXPOSURE_ROOM,
        max_mean=max(means) + (255 - max(means)) * EXPOSURE_ROOM,
        min_contrast=min(m.contrast for m in measured) * EXPOSURE_ROOM,
        reference_mean=float(np.mean(means)),
    )


def golden_frames(frames: Sequence[Pixels]) -> list[Pixels]:
    """Frames every box can reproduce without the line's images: seeded texture in the line's own grey levels.

    Images of the line may be confidential or licensed; what the probe needs is only that pixels go in and known
    numbers come out, for values like those the line has.
    """
    generator = np.random.default_rng(0)
    levels = np.concatenate([frame.reshape(-1)[:: max(1, frame.size // 4096)] for frame in frames[:32]])
    low, high = np.percentile(levels, [2, 98])
    made = []
    for i in range(GOLDEN_FRAMES):
        coarse = generator.random((2 ** (i % 3 + 2),) * 2)
        rows = np.linspace(0, coarse.shape[0] - 1.001, GOLDEN_SIDE)
        field_ = coarse[rows.astype(int)][:, rows.astype(int)] + 0.15 * generator.standard_normal((GOLDEN_SIDE,) * 2)
        made.append(np.clip(low + field_ * (high - low), 0, 255).astype(np.uint8))
    return made


def build_starting(
    images: Sequence[LabelledImage],
    *,
    validation: Sequence[LabelledImage],
    line: str,
    classes: list[ClassSpec],
    settings: StartingSettings,
    seed: int,
    now: datetime,
    say: Say = lambda text: None,
) -> Starting:
    """Train a line's first model.

    Args:
        validation: held-out images for calibration and thresholds; give whole groups that `images` lack.

    Raises:
        CannotTrain: too few images of a class, an unknown label, an unreadable image, or a preset without a tower.
        BadCheckpoint: the tower's weights are not installed.
    """
    check_preset(settings.preset)
    check_enough(images, classes, least=MIN_PER_CLASS, what="training")
    check_enough(validation, classes, least=MIN_VALIDATION_PER_CLASS, what="validation")
    names = [spec.name for spec in classes]
    frames, held = decoded(images), decoded(validation)
    labels = np.array([names.index(image.label) for image in images], dtype=np.int64)
    held_labels = np.array([names.index(image.label) for image in validation], dtype=np.int64)
    model = new_model(preset(settings.preset), seed=seed)
    golden = golden_frames(frames)
    say(f"reading {len(frames)} + {len(held)} images with the frozen tower")
    examples, tower_base = _fit_tower(model, frames, labels, golden=golden, settings=settings, now=now)
    say(f"training the trunk on {len(frames)} images")
    losses = pretrain(model, examples, classes=len(classes), settings=settings.pretrain, seed=seed)
    built = _export(
        model, golden=golden, settings=settings, now=now, training={"images": float(len(frames)), "seed": float(seed)}
    )
    base = built.open()
    say("exporting int8, calibrating, setting thresholds")
    judged = tokenize(tower_base, held, held_labels, settings)
    head = first_head(model, examples, classes=len(classes), settings=settings.pretrain)
    parts = assemble(
        base, classes, lora=None, feeds={}, head=head, validation=judged, seen=examples, costs=settings.costs,
        settings=settings.release, exposure=exposure_limits(frames), seed=seed,
    )  # fmt: skip
    lineage = Lineage(training_run="starting", labels=len(images), code_version=VERSION, seed=seed, trained_at=now)
    identity = Identity(
        base_sha=built.manifest.digest(), line=line, release=settings.number, lineage=lineage, created_at=now,
        roi=settings.roi, exposure=parts.exposure,
    )  # fmt: skip
    packed = pack(base, parts, identity, golden=golden, rank=model.config.lora_rank)
    facts = report(base, model, packed, judged=judged, classes=classes, losses=losses)
    return Starting(built, save_checkpoint(model), packed, facts)


def _fit_tower(
    model: DeepSeekEdge,
    frames: Sequence[Pixels],
    labels: NDArray[np.int64],
    *,
    golden: Sequence[Pixels],
    settings: StartingSettings,
    now: datetime,
) -> tuple[Examples, Base]:
    """Fix the tower's standardisation on the line's images, and read every image with the exported tower."""
    some = frames[:: max(1, len(frames) // STANDARDISE_FRAMES)]
    fit_standardise(model, preprocess_batch(some, preprocessing_of(model.config), roi=settings.roi))
    base = _export(model, golden=golden, settings=settings, now=now, training={}).open()
    return tokenize(base, frames, labels, settings), base


def _export(
    model: DeepSeekEdge,
    *,
    golden: Sequence[Pixels],
    settings: StartingSettings,
    now: datetime,
    training: dict[str, float | str],
) -> BuiltBase:
    config: EdgeConfig = model.config
    known = config.tower.kind == "efficientnet_lite"
    return build_base(
        model, family=settings.family, version=settings.version, golden=golden,
        pretrained=f"tower: {IMAGENET_NAME}; trunk: this line's images" if known else "none: random weights",
        licence="Apache-2.0 (tower weights); trunk: the line owner's", created_at=now, training=training,
    )  # fmt: skip


def report(
    base: Base, model: DeepSeekEdge, packed: Packed, *, judged: Examples, classes: list[ClassSpec], losses: list[float]
) -> dict[str, float]:
    """What a person wants to know before installing: accuracy per class on held-out images, parity, sizes."""
    manifest: Manifest = packed.manifest
    spec = packed.manifest.head
    head = load_head(spec, packed.blobs[spec.blob.sha256], embedding=base.manifest.embedding)
    probabilities = head.probabilities(embed_onnx(base, judged.tokens[:, 0], feeds_of(base.manifest, None)))
    scores, defects = head.defect_scores(probabilities), np.array([c.defect for c in classes])
    called = scores >= packed.manifest.thresholds.call_at
    truth = defects[judged.labels]
    parity = compare(base, model, head, judged.tokens[:24, 0], lora=None, feeds={})
    shown = [(i, c) for i, c in enumerate(classes) if (judged.labels == i).any()]
    recalls = {f"recall_{c.name}": float((called[judged.labels == i] == c.defect).mean()) for i, c in shown}
    counts = {f"images_{c.name}": float((judged.labels == i).sum()) for i, c in shown}
    return {
        **recalls,
        **counts,
        "missed": float((truth & ~called).sum()),
        "accuracy": float((called == truth).mean()),
        "balanced_accuracy": float(np.mean([(called[truth == t] == t).mean() for t in (False, True)])),
        "validation_images": float(len(judged)),
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "parity": parity.max_probability,
        "parity_agreement": parity.agreement,
        "release_bytes": float(packed.size + len(manifest.encode())),
    }
