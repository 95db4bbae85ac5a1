"""Do torch and the exported files agree? Measured on real frames, at the level that matters: class probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.nn.config import EdgeConfig
from models.nn.heads import embed
from models.nn.lora import from_feeds, quantized_copy, with_lora
from models.nn.model import DeepSeekEdge
from models.runtime.base import Base, Feeds
from models.runtime.heads import ClassHead

F16 = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Parity:
    """Over `frames` frames: share of equal decisions, largest and mean probability difference, embedding error.

    `embedding` is ``|onnx - torch| / |torch|`` over all frames.
    """

    frames: int
    agreement: float
    max_probability: float
    mean_probability: float
    embedding: float


def torch_embedding(
    model: DeepSeekEdge, tokens: F16, lora: dict[str, NDArray[np.float32]] | None
) -> NDArray[np.float32]:
    """Embeddings [N, D] of the torch trunk with the int8 graph's dequantized weights and, if given, an adapter."""
    config: EdgeConfig = model.config
    trunk = quantized_copy(model.trunk)
    if lora is not None:
        from_feeds(with_lora(trunk, config, dropout=0.0), config, lora)
    return embed(trunk, tokens).numpy()


def compare(
    base: Base,
    model: DeepSeekEdge,
    head: ClassHead,
    tokens: F16,
    *,
    lora: dict[str, NDArray[np.float32]] | None,
    feeds: Feeds,
) -> Parity:
    """Torch with dequantized weights against the exported int8 trunk, with the same adapter and head.

    Args:
        tokens: [N, T, C] image tokens of real frames.
    """
    with torch.no_grad():
        reference = torch_embedding(model, tokens, lora)
    exported = np.concatenate([base.embed(t[None].astype(np.float32), feeds).embedding for t in tokens])
    p, q = head.probabilities(reference), head.probabilities(exported)
    difference = np.abs(p - q)
    return Parity(
        frames=len(tokens),
        agreement=float((p.argmax(axis=1) == q.argmax(axis=1)).mean()),
        max_probability=float(difference.max()),
        mean_probability=float(difference.mean()),
        embedding=float(np.linalg.norm(exported - reference) / np.linalg.norm(reference)),
    )
