"""A line's first release on a base that was built, not trained: the base stays as it is, only a class head is fitted.

The head is a multinomial logistic regression on the embeddings of the exported graphs, pulled towards the classes' own
words where the base came with a tokenizer: ``min mean w CE(W f + b, y) + decay |W - s R|^2`` with R the unit rows of
`models.nn.prompt.class_rows` and s the scale at which these rows alone explain the labels best. With many labels the
words stop mattering; a class without any starts as its word.

The first hour of learning adds an adapter. Refusals are those of `models.nn.starting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import torch
from numpy.typing import NDArray

from models.contracts.model_manifest import ClassSpec, Lineage
from models.nn.heads import class_balance, fit_head, word_scale
from models.nn.model import DeepSeekEdge
from models.nn.package import Packed
from models.nn.release import Identity, assemble, embed_onnx, log_loss, pack
from models.nn.starting import (
    MIN_PER_CLASS,
    MIN_VALIDATION_PER_CLASS,
    VERSION,
    CannotTrain,
    LabelledImage,
    Say,
    StartingSettings,
    check_enough,
    decoded,
    exposure_limits,
    report,
    tokenize,
)
from models.runtime.base import Base
from models.runtime.image import Pixels

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ground:
    """A built base, the model it was exported from, its golden frames, and the language head's rows of the classes."""

    base: Base
    model: DeepSeekEdge
    golden: Sequence[Pixels]
    words: F32 | None = None


def first_release(
    ground: Ground, images: Sequence[LabelledImage], *, validation: Sequence[LabelledImage], line: str,
    classes: list[ClassSpec], settings: StartingSettings, seed: int, now: datetime, say: Say = lambda text: None,
) -> tuple[Packed, dict[str, float]]:  # fmt: skip
    """Fit, calibrate, set thresholds, pack.

    Args:
        classes: those with words may lack images; they can be recognised, and nothing is claimed about how well.

    Raises:
        CannotTrain: too few images of a class, an unknown label, an unreadable image.
    """
    names = [spec.name for spec in classes]
    have = {image.label for image in images}
    shown = [spec for spec in classes if ground.words is None or spec.name in have]
    if len({spec.defect for spec in shown}) < 2:
        raise CannotTrain("images of at least one good and one defect class are needed, words alone cannot judge")
    named = [ClassSpec(name=spec.name, defect=spec.defect) for spec in shown]
    check_enough(images, named, least=MIN_PER_CLASS, what="training")
    check_enough(validation, named, least=MIN_VALIDATION_PER_CLASS, what="validation")
    base, frames = ground.base, decoded(images)
    say(f"reading {len(images)} + {len(validation)} images with the base")
    seen = tokenize(base, frames, _numbers(images, names), settings)
    judged = tokenize(base, decoded(validation), _numbers(validation, names), settings)
    embedding = embed_onnx(base, seen.tokens[:, 0], {})
    head = _fit(
        embedding, seen.labels, classes=len(classes), words=ground.words, decay=settings.release.adapt.head_decay
    )
    parts = assemble(
        base, classes, lora=None, feeds={}, head=head, validation=judged, seen=seen, costs=settings.costs,
        settings=settings.release, exposure=exposure_limits(frames), seed=seed,
    )  # fmt: skip
    lineage = Lineage(training_run="first", labels=len(images), code_version=VERSION, seed=seed, trained_at=now)
    identity = Identity(
        base_sha=base.sha256, line=line, release=settings.number, lineage=lineage, created_at=now,
        roi=settings.roi, exposure=parts.exposure,
    )  # fmt: skip
    packed = pack(base, parts, identity, golden=ground.golden, rank=ground.model.config.lora_rank)
    nothing = np.zeros((len(images), len(classes)), dtype=np.float32)
    losses = [log_loss(nothing, seen.labels), log_loss(embedding @ head[0].T + head[1], seen.labels)]
    return packed, report(base, ground.model, packed, judged=judged, classes=classes, losses=losses)


def _numbers(images: Sequence[LabelledImage], names: list[str]) -> NDArray[np.int64]:
    return np.array([names.index(image.label) for image in images], dtype=np.int64)


def _fit(
    embedding: F32, labels: NDArray[np.int64], *, classes: int, words: F32 | None, decay: float
) -> tuple[F32, F32]:
    """Weight [C, D] and bias [C]."""
    f, y = torch.from_numpy(embedding), torch.from_numpy(labels)
    weights = class_balance(y, classes)
    prior = None
    if words is not None:
        rows = torch.from_numpy(words)
        prior = word_scale(f, y, weights, rows) * rows
    weight, bias = fit_head(f, y, weights, classes=classes, decay=decay, prior=prior)
    return weight.numpy(), bias.numpy()
