"""Do torch and the exported files agree? Measured on real frames, at the level that matters: class probabilities."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.nn.config import EdgeConfig
from models.nn.device import choose_device
from models.nn.export import export_trunk
from models.nn.external import serialise
from models.nn.heads import embed
from models.nn.lora import from_feeds, quantized_copy, with_lora
from models.nn.model import DeepSeekEdge
from models.runtime.base import Base, Feeds, SessionLimits, new_session
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
    model: DeepSeekEdge, tokens: F16, lora: dict[str, NDArray[np.float32]] | None, *, device: str = "cpu"
) -> NDArray[np.float32]:
    """Embeddings [N, D] of the torch trunk with the int8 graph's dequantized weights and, if given, an adapter."""
    config: EdgeConfig = model.config
    trunk = quantized_copy(model.trunk, choose_device(device))
    if lora is not None:
        from_feeds(with_lora(trunk, config, dropout=0.0), config, lora)
    return embed(trunk, tokens).numpy()


def compare_exports(model: DeepSeekEdge, head: ClassHead, tokens: F16) -> dict[str, Parity]:
    """The bare model, exported as float32 and as int8, each against torch in float32.

    ``float32`` tells whether the graph is the model, ``int8`` what quantization costs.

    Args:
        tokens: [N, T, C] image tokens of real frames.
    """
    exact = embed(model.trunk, tokens).numpy()
    found = {}
    for name, int8 in (("float32", False), ("int8", True)):
        with tempfile.TemporaryDirectory(prefix="edgeloop-parity-") as folder:
            path = _write_trunk(model, Path(folder), name, int8=int8)
            session = new_session(str(path), SessionLimits(threads=torch.get_num_threads()))
        exported = np.concatenate(
            [session.run(["embedding"], {"tokens": one[None].astype(np.float32)})[0] for one in tokens]
        )
        found[name] = _parity(head, exact, exported)
    return found


def _write_trunk(model: DeepSeekEdge, folder: Path, name: str, *, int8: bool) -> Path:
    """The bare trunk's graph on disk; nothing of it stays in memory, where a session will want the same room."""
    graph = serialise(export_trunk(model.trunk, model.config, int8=int8, lora=False), data_name=f"{name}.data")
    path = folder / f"{name}.onnx"
    path.write_bytes(graph.onnx)
    if graph.data is not None:
        (folder / f"{name}.data").write_bytes(graph.data)
    return path


def compare(
    base: Base,
    model: DeepSeekEdge,
    head: ClassHead,
    tokens: F16,
    *,
    lora: dict[str, NDArray[np.float32]] | None,
    feeds: Feeds,
    device: str = "cpu",
) -> Parity:
    """Torch with dequantized weights against the exported int8 trunk, with the same adapter and head.

    Args:
        tokens: [N, T, C] image tokens of real frames.
        device: where torch computes, a word for `models.nn.device.choose_device`.
    """
    with torch.no_grad():
        reference = torch_embedding(model, tokens, lora, device=device)
    exported = np.concatenate([base.embed(t[None].astype(np.float32), feeds).embedding for t in tokens])
    return _parity(head, reference, exported)


def _parity(head: ClassHead, reference: NDArray[np.float32], exported: NDArray[np.float32]) -> Parity:
    p, q = head.probabilities(reference), head.probabilities(exported)
    difference = np.abs(p - q)
    return Parity(
        frames=len(reference),
        agreement=float((p.argmax(axis=1) == q.argmax(axis=1)).mean()),
        max_probability=float(difference.max()),
        mean_probability=float(difference.mean()),
        embedding=float(np.linalg.norm(exported - reference) / np.linalg.norm(reference)),
    )
