"""A base from a published DeepSeek-VL directory, or from seeded random weights for measurements.

Nothing is trained here. The prompt is folded into the graph, both graphs are quantized, and the checkpoint that
adapters will be trained on is kept in the published precision, so that torch and the boxes stand on the same numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.nn.config import EdgeConfig
from models.nn.external import INLINE_BYTES
from models.nn.model import DeepSeekEdge
from models.nn.package import BuiltBase, build_base, preprocessing_of
from models.nn.prompt import DEFAULT_PROMPT, check_known, read_tokenizer, tokenize_prompt
from models.nn.published import BadPublished, check_folder, read_published
from models.nn.starting import golden_frames
from models.runtime.preprocess import preprocess_batch

PRECISION = torch.bfloat16
"""Of the kept checkpoint: what DeepSeek-VL was published in."""
RANDOM = "none: random weights"
PREPROCESSOR = "preprocessor_config.json"
Say = Callable[[str], None]


class BadBuild(ValueError):
    """The exported graphs do not compute numbers. The text names the comparison that found it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A published directory and the prompt to fold, with the image's place marked."""

    folder: Path
    prompt: str = DEFAULT_PROMPT


@dataclass(frozen=True, slots=True)
class Built:
    """A base and the model it was exported from. `report` says what a person wants to know of it.

    `head` [vocabulary, D] is the language head where it is not the embedding table, which the model has.
    """

    base: BuiltBase
    model: DeepSeekEdge
    report: dict[str, str | float]
    head: Tensor | None = None


def build(
    config: EdgeConfig, *, source: Source | None, family: str, version: int, seed: int, now: datetime,
    inline_bytes: int = INLINE_BYTES, say: Say = lambda text: None,
) -> Built:  # fmt: skip
    """Export and quantize; see the module.

    Args:
        source: None builds random weights from `seed`, and every table made with them says so.
        inline_bytes: a graph above it keeps its weights in a data file beside it.

    Raises:
        BadPublished, BadPrompt: the directory cannot be used; the text names the tensor, the file or the word.
        BadBuild: torch or a graph answers the golden frames with NaN or infinite values.
    """
    if source is None:
        say(f"{config.name}: random weights from seed {seed}: for measurements only")
        torch.manual_seed(seed)
        model, pretrained, licence = DeepSeekEdge(config).eval(), f"{RANDOM}, seed {seed}", "none: random weights"
        facts: dict[str, str | float] = {}
        head = None
    else:
        say(f"reading {source.folder}")
        model, head, facts = _from_published(config, source)
        pretrained, licence = f"{source.folder.resolve().name} (published checkpoint)", str(facts["licence"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(PRECISION))
    say("exporting both graphs, int8")
    golden = golden_frames([_grey_ramp()])
    made = build_base(
        model, family=family, version=version, golden=golden, pretrained=pretrained, licence=licence, created_at=now,
        inline_bytes=inline_bytes,
    )  # fmt: skip
    say("comparing the graphs with torch on the golden frames")
    errors = _errors(made, model, golden)
    if wrong := [name for name, value in errors.items() if not math.isfinite(value)]:
        raise BadBuild(
            f"{wrong[0]} is {errors[wrong[0]]}: on the golden frames the model's values are not finite; its weights or "
            "its pixel normalisation are damaged"
        )
    report = {"pretrained": pretrained, "licence": licence, **facts, **errors}
    return Built(made, model, report, head)


def _from_published(config: EdgeConfig, source: Source) -> tuple[DeepSeekEdge, Tensor | None, dict[str, str | float]]:
    """The model with the directory's weights and the prompt as its own parameters; a language head of its own."""
    if config.trunk.experts is not None:
        raise BadPublished(
            f"no checkpoint of preset {config.name} is published: build it without --checkpoint, with random weights"
        )
    if config.tower.kind == "efficientnet_lite":
        raise BadPublished(
            f"preset {config.name} takes no published checkpoint, its tower is not DeepSeek-VL's: build it without "
            "--checkpoint, or train it with edgeloop models train"
        )
    check_folder(source.folder)
    tokenizer = read_tokenizer(source.folder)
    prompt = tokenize_prompt(tokenizer, source.prompt, vocabulary=config.trunk.vocabulary)
    check_known(tokenizer, source.prompt)
    config = replace(config, prefix=len(prompt.prefix), suffix=len(prompt.suffix))
    config = _with_pixels(config, source.folder / PREPROCESSOR)
    model = DeepSeekEdge(config).eval()
    own = model.state_dict()
    found = read_published(source.folder, config, {name: tensor.shape for name, tensor in own.items()})
    table = found.state["trunk.model.embed_tokens.weight"]
    prompts = {"trunk.prefix": table[list(prompt.prefix)], "trunk.suffix": table[list(prompt.suffix)]}
    rest = {name: own[name] for name in own.keys() - found.state.keys() - prompts.keys()}
    model.load_state_dict({**found.state, **prompts, **rest}, assign=True)
    facts: dict[str, str | float] = {
        "naming": found.naming,
        "licence": found.licence,
        "language_head": "tied to the embedding table" if found.tied else "its own",
        "prompt_tokens": float(config.prefix + config.suffix),
    }
    return model, None if found.tied else found.head, facts


def _with_pixels(config: EdgeConfig, path: Path) -> EdgeConfig:
    """The directory's pixel normalisation, on the 0-255 scale."""
    if not path.is_file():
        return config
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        mean, std = ([255.0 * float(value) for value in stated[key]] for key in ("image_mean", "image_std"))
        red, green, blue = zip(mean, std, strict=True)
    except (ValueError, KeyError, TypeError) as fault:
        raise BadPublished(f"{path} does not state image_mean and image_std for three colours: {fault}") from fault
    for key, values in (("image_mean", mean), ("image_std", std)):
        if not all(map(math.isfinite, values)) or (key == "image_std" and min(values) <= 0):
            wanted = "above 0 and finite" if key == "image_std" else "finite"
            raise BadPublished(f"{path}: {key} is {stated[key]}, every value must be {wanted}: download it again")
    return replace(config, pixel_mean=(red[0], green[0], blue[0]), pixel_std=(red[1], green[1], blue[1]))


def _grey_ramp() -> np.ndarray:
    """Every grey level once: a base that belongs to no line yet has no frames of its own."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16)


def _errors(made: BuiltBase, model: DeepSeekEdge, golden: list[np.ndarray]) -> dict[str, float]:
    """Relative errors of the exported graphs against torch in float32, over the golden frames."""
    base = made.open()
    pixels = preprocess_batch(golden, preprocessing_of(model.config))
    with torch.no_grad():
        tokens = model.tokens(torch.from_numpy(pixels))
        embedding = model.trunk(tokens)
    exported = base.tokens(pixels)
    return {
        "tower_error": _relative(exported, tokens),
        "trunk_error": _relative(base.embed(tokens.numpy(), {}).embedding, embedding),
        "frame_error": _relative(base.embed(exported, {}).embedding, embedding),
    }


def _relative(found: np.ndarray, expected: Tensor) -> float:
    reference = expected.numpy()
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))
