"""A toy DeepSeek-Edge with its exported base, and images of two kinds that a model can tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from models.contracts.model_manifest import ClassSpec
from models.nn.checkpoint import imagenet_tower
from models.nn.config import tiny
from models.nn.examples import Examples
from models.nn.model import DeepSeekEdge
from models.nn.package import BuiltBase, build_base, preprocessing_of
from models.nn.pretrain import fit_standardise
from models.runtime.base import Base
from models.runtime.preprocess import preprocess_batch

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CLASSES = [ClassSpec(name="good", defect=False), ClassSpec(name="scratch", defect=True)]


def picture(seed: int, *, defect: bool, size: int = 48, level: int = 120) -> NDArray[np.uint8]:
    """Smooth grey noise; a defect is a bright band somewhere."""
    rng = np.random.default_rng(seed)
    image = rng.normal(level, 8, (size, size))
    if defect:
        column = int(rng.integers(4, size // 2))
        image[:, column : column + size // 3] += 90
    return np.clip(image, 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Toy:
    model: DeepSeekEdge
    built: BuiltBase
    base: Base


@cache
def toy(kind: str = "1.7b") -> Toy:
    """`1.7b` has a transformer tower, `nano` the ImageNet convolution tower."""
    torch.manual_seed(0)
    model = DeepSeekEdge(tiny(kind)).eval()
    if kind == "nano":
        model.tower.load_state_dict(imagenet_tower(model.config.tower.depth))
    frames = [picture(i, defect=bool(i % 2)) for i in range(1000, 1016)]
    fit_standardise(model, preprocess_batch(frames, preprocessing_of(model.config)))
    golden = [picture(i, defect=bool(i % 2)) for i in range(4)]
    built = build_base(
        model, family="toy", version=1, golden=golden, pretrained="none: random weights", licence="none", created_at=NOW
    )
    return Toy(model, built, built.open())


def examples(made: Toy, seeds: range, *, level: int = 120, views: int = 1) -> Examples:
    """Half good, half defective."""
    from models.nn.examples import frame_tokens

    labels = np.array([i % 2 for i in seeds], dtype=np.int64)
    rows = [frame_tokens(made.base, picture(i, defect=bool(i % 2), level=level), flips=views > 1) for i in seeds]
    return Examples(np.stack(rows), labels, np.ones(len(labels), dtype=np.float32))
