"""Reads a published DeepSeek-VL directory: which tensor of its files is which of ours, and whether all are there.

Two namings are in use: transformers' own (`DeepseekVLForConditionalGeneration`, with and without the doubled
``vision_model``) and the original repository's (`MultiModalityCausalLM`, whose tower is timm's: one ``qkv`` per block,
positions with a batch axis). Every tensor is looked up by the name it must have in that naming, so what is missing,
misshapen or unknown is named as the directory names it. Nothing is unpickled: a directory without safetensors is
refused.

Not trusted: ``tie_word_embeddings``. Where the files hold a language head of their own it is compared with the
embedding table. Only where they hold none is the flag read, and one that is left out means what the naming's own class
makes of it: tied for ``DeepseekVLConfig``, a head of its own for the original's ``LlamaConfig``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.nn.config import EdgeConfig

Naming = Literal["transformers", "original"]
SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
EMBEDDING = "trunk.model.embed_tokens.weight"
OURS_ALONE = re.compile(r"trunk\.(prefix|suffix)|standardise\..*")
"""Parameters a published directory cannot have: the folded prompt and the tower's standardisation."""
TOWER_EPS = 1e-6
"""Of the tower's LayerNorms: SigLIP's, in transformers and in timm."""
FLOATS = ("F16", "BF16", "F32")
"""Types of weights, as safetensors names them: an integer is a quantized weight without its scale."""
UNUSED = re.compile(
    r"(model\.)?vision_model\.(vision_model\.)?head\..*|vision_model\.vision_tower\.(attn_pool|fc_norm|head)\..*"
    r"|.*rotary_emb\.inv_freq|.*position_ids|.*vision_tower\.(mean|std)"
)
"""The tower's pooling head, and buffers that are computed."""


class BadPublished(ValueError):
    """The directory is no checkpoint of this preset. The text names the tensor or the file."""


@dataclass(frozen=True, slots=True)
class Published:
    """A directory that was read.

    `state` fills `DeepSeekEdge` but for the prompt and the standardisation; `head` [vocabulary, D] are the rows of the
    language head, the embedding table itself where they are tied.
    """

    state: dict[str, Tensor]
    head: Tensor
    tied: bool
    naming: Naming
    licence: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one of our tensors lies: the name in the files, and which of `parts` equal row blocks it is."""

    name: str
    part: int = 0
    parts: int = 1


def read_published(folder: Path, config: EdgeConfig, own: Mapping[str, torch.Size]) -> Published:
    """Every tensor of `own` that a published directory has, float32.

    Args:
        own: names and shapes of the model's state.

    Raises:
        BadPublished: no safetensors, a truncated file, a tensor that is missing, unknown or misshapen, a configuration
            that contradicts the preset.
    """
    files = _shards(folder)
    naming: Naming = "original" if any(".vision_tower." in name for name in files) else "transformers"
    stated = _json(folder / CONFIG)
    _check_config(folder / CONFIG, stated, config)
    place = _transformers(files) if naming == "transformers" else _original
    wanted = {name: place(name) for name in own if not OURS_ALONE.fullmatch(name)}
    head_name = _head_name(files, naming)
    _check_names(files, {found.name for found in wanted.values()}, head_name)
    with _Reader(folder, files) as reader:
        state = {name: reader.take(found, own[name]) for name, found in wanted.items()}
        table = state[EMBEDDING]
        head = reader.take(_Place(head_name), table.shape) if head_name in files else table
    tied = head is table or torch.equal(head, table)
    if head is table and not _says_tied(folder / CONFIG, stated, naming):
        raise BadPublished(
            f"the tensor {head_name} is missing, and by {CONFIG} it is not the embedding table: download it again, or "
            "state tie_word_embeddings true where they are one"
        )
    return Published(state, table if tied else head, tied, naming, _licence(folder))


def check_folder(folder: Path) -> None:
    """
    Raises:
        BadPublished: there is no such directory.
    """
    if not folder.is_dir():
        raise BadPublished(f"{folder} is no directory: give the one with {CONFIG} and the safetensors files")


def _shards(folder: Path) -> dict[str, str]:
    """Which file holds each tensor."""
    check_folder(folder)
    if (folder / INDEX).is_file():
        index = _json(folder / INDEX).get("weight_map")
        if not isinstance(index, dict):
            raise BadPublished(f"{folder / INDEX} has no weight_map")
        if odd := sorted(name for name, shard in index.items() if not isinstance(shard, str)):
            raise BadPublished(f"{folder / INDEX} names no file for the tensor {odd[0]}: download it again")
        if outside := sorted({shard for shard in index.values() if Path(shard).name != shard}):
            raise BadPublished(f"{folder / INDEX} names {outside[0]}, which is not a file of this directory")
        if lacking := sorted({shard for shard in index.values() if not (folder / shard).is_file()}):
            raise BadPublished(f"{folder / INDEX} names {lacking[0]}, which is not there: download it again")
        return {str(name): str(shard) for name, shard in index.items()}
    if not (folder / SINGLE).is_file():
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        why = "it has pickled weights only; convert them with safetensors" if pickled else f"it has no {SINGLE}"
        raise BadPublished(f"{folder} cannot be read: {why}")
    return dict.fromkeys(_names(folder / SINGLE), SINGLE)


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as fault:
        raise BadPublished(f"{path} is truncated or no safetensors file ({fault}): download it again") from fault


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise BadPublished(f"{path} cannot be read: {fault}") from fault
    if not isinstance(found, dict):
        raise BadPublished(f"{path} holds no JSON object")
    return found


class _Reader:
    """Opens each shard once."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self._folder, self._files = folder, files
        self._open: dict[str, Any] = {}

    def __enter__(self) -> _Reader:
        for shard in sorted(set(self._files.values())):
            held = set(_names(self._folder / shard))
            if lacking := sorted(name for name, at in self._files.items() if at == shard and name not in held):
                raise BadPublished(f"{shard} lacks the tensor {lacking[0]} ({len(lacking)} missing)")
            self._open[shard] = safe_open(self._folder / shard, framework="pt")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()

    def take(self, place: _Place, shape: torch.Size) -> Tensor:
        """The tensor, float32, in our shape."""
        shard = self._files[place.name]
        stored = self._open[shard].get_slice(place.name)
        found, wanted = list(stored.get_shape()), list(shape)
        if (dtype := str(stored.get_dtype())) not in FLOATS:
            raise BadPublished(
                f"{shard}: {place.name} is stored as {dtype}, weights must be {', '.join(FLOATS)}: give the checkpoint "
                "that was not quantized"
            )
        if place.parts > 1:
            wanted[0] *= place.parts
        if found not in (wanted, [1, *wanted]):
            raise BadPublished(f"{shard}: {place.name} is {tuple(found)}, this preset needs {tuple(wanted)}")
        whole = stored[:] if found == wanted else stored[:][0]
        rows = whole.chunk(place.parts)[place.part] if place.parts > 1 else whole
        made = rows.to(torch.float32, copy=True).contiguous()
        if not torch.isfinite(made).all():
            raise BadPublished(f"{shard}: {place.name} holds NaN or infinite values")
        return made


def _head_name(files: Mapping[str, str], naming: Naming) -> str:
    inner = "language_model.lm_head.weight"
    return inner if naming == "original" or inner in files else "lm_head.weight"


def _check_names(files: Mapping[str, str], wanted: set[str], head: str) -> None:
    """All of `wanted` are there; beside them only `head` and what nobody needs."""
    if lacking := sorted(wanted - files.keys()):
        raise BadPublished(f"the tensor {lacking[0]} is missing ({len(lacking)} missing)")
    unknown = sorted(name for name in files.keys() - wanted - {head} if not UNUSED.fullmatch(name))
    if unknown:
        raise BadPublished(f"the tensor {unknown[0]} belongs to another architecture ({len(unknown)} unknown)")


def _transformers(files: Mapping[str, str]) -> Callable[[str], _Place]:
    """Our names in transformers' naming, as this directory spells its prefixes."""
    root = "model." if any(name.startswith("model.") for name in files) else ""
    doubled = f"{root}vision_model.vision_model."
    tower = doubled if any(name.startswith(doubled) for name in files) else f"{root}vision_model."
    inner = f"{root}language_model.model."
    trunk = inner if any(name.startswith(inner) for name in files) else f"{root}language_model."

    def place(name: str) -> _Place:
        if name.startswith("tower.model."):
            return _Place(tower + name.removeprefix("tower.model."))
        if name.startswith("trunk.aligner."):
            return _Place(f"{root}aligner.linear{name.removeprefix('trunk.aligner.fc')}")
        return _Place(trunk + name.removeprefix("trunk.model."))

    return place


_TIMM = (
    (r"embeddings\.patch_embedding\.(.*)", r"patch_embed.proj.\1"),
    (r"embeddings\.position_embedding\.weight", r"pos_embed"),
    (r"encoder\.layers\.(\d+)\.self_attn\.[qkv]_proj\.(.*)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.(\d+)\.layer_norm(\d)\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.(\d+)\.mlp\.(.*)", r"blocks.\1.mlp.\2"),
    (r"post_layernorm\.(.*)", r"norm.\1"),
)


def _original(name: str) -> _Place:
    """Our names in the original repository's naming."""
    if name.startswith("trunk.aligner."):
        layer, kind = name.removeprefix("trunk.aligner.fc").split(".")
        return _Place(f"aligner.layers.{2 * (int(layer) - 1)}.{kind}")
    if not name.startswith("tower.model."):
        return _Place("language_model.model." + name.removeprefix("trunk.model."))
    inner = name.removeprefix("tower.model.")
    part = re.search(r"self_attn\.([qkv])_proj", inner)
    for pattern, replacement in _TIMM:
        if re.fullmatch(pattern, inner):
            theirs = "vision_model.vision_tower." + re.sub(pattern, replacement, inner)
            return _Place(theirs) if part is None else _Place(theirs, "qkv".index(part[1]), 3)
    raise BadPublished(f"the original naming has no tensor for {name}")


def _check_config(path: Path, found: dict[str, Any], config: EdgeConfig) -> None:
    """What no tensor's shape tells, where it is stated: heads, rotary positions, norms, activations, image size."""
    text, vision = _language(path, found), _section(path, found, "vision_config")
    vision = {**vision, **_section(path, vision, "params")}
    for what, stated, ours in (
        ("attention heads of the trunk", text.get("num_attention_heads"), config.trunk.heads),
        ("key and value heads of the trunk", text.get("num_key_value_heads"), config.trunk.heads),
        ("norm epsilon", text.get("rms_norm_eps"), config.trunk.norm_eps),
        ("activation of the trunk (hidden_act)", text.get("hidden_act"), "silu"),
        ("biases in attention (attention_bias)", text.get("attention_bias"), False),
        ("biases in the trunk's MLP (mlp_bias)", text.get("mlp_bias"), False),
        ("rotary base", text.get("rope_theta"), config.trunk.rope_theta),
        *_rotary(path, text, config),
        ("attention heads of the tower", vision.get("num_attention_heads"), config.tower.heads),
        ("activation of the tower (hidden_act)", vision.get("hidden_act"), "gelu"),
        ("norm epsilon of the tower (layer_norm_eps)", vision.get("layer_norm_eps"), TOWER_EPS),
        ("image size", vision.get("image_size"), config.tower.image),
    ):
        if stated is not None and stated != ours:
            raise BadPublished(f"{path}: {what} {stated}, preset {config.name} has {ours}")


def _rotary(path: Path, text: dict[str, Any], config: EdgeConfig) -> Iterator[tuple[str, Any, Any]]:
    """Rotary positions under both names that transformers has had for them: base, kind of scaling, turned share."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = _section(path, text, key)
        kind = rope.get("rope_type", rope.get("type"))
        yield f"rotary base ({key})", rope.get("rope_theta"), config.trunk.rope_theta
        yield f"rotary scaling ({key})", kind, "default"
        yield f"rotary scaling factor ({key})", rope.get("factor"), 1.0
        yield f"turned share of each head ({key})", rope.get("partial_rotary_factor"), 1.0


def _language(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    return _section(path, found, "text_config") or _section(path, found, "language_config")


def _section(path: Path, found: dict[str, Any], key: str) -> dict[str, Any]:
    """A part of a configuration; empty where it is left out."""
    part = found.get(key)
    if part is None:
        return {}
    if not isinstance(part, dict):
        raise BadPublished(f"{path}: {key} is {part!r}, not an object: download it again")
    return part


def _says_tied(path: Path, found: dict[str, Any], naming: Naming) -> bool:
    """Whether the language head is the embedding table; each naming's class reads another flag, with another default
    (transformers 5: `DeepseekVLConfig` True; `LlamaConfig`, which the original's language model is made from, False).
    """
    if naming == "transformers":
        return found.get("tie_word_embeddings", True) is True
    return _language(path, found).get("tie_word_embeddings", False) is True


def _licence(folder: Path) -> str:
    """As the directory states it: the model card's front matter, else the first line of a licence file."""
    for line in _front_matter(folder / "README.md"):
        match = re.fullmatch(r"license(?:_name)?:\s*(\S.*)", line.strip())
        if match and match[1].strip("'\"") != "other":
            return match[1].strip("'\"")[:200]
    for path in sorted(folder.glob("LICENSE*")):
        first = next((line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()), "")
        if first:
            return first[:200]
    return "not stated in the checkpoint's directory"


def _front_matter(path: Path) -> Iterator[str]:
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if lines[:1] == ["---"]:
        for line in lines[1:]:
            if line.strip() == "---":
                return
            yield line
