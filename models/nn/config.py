"""Presets of DeepSeek-Edge: one family, sizes as data.

The family is DeepSeek-VL's: a vision tower, a two-layer GELU aligner, a Llama-shaped trunk (RMSNorm, rotary
embedding, SwiGLU) read at its last token. Tower kind is a field; everything behind the aligner is one code path.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from models.nn.int8 import Int8

TowerKind = Literal["siglip", "efficientnet_lite"]
Scoring = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """`width` channels per token on a `grid` x `grid` grid from `image` x `image` pixels.

    For siglip: `depth` layers of `heads` heads, feed-forward `ffn`, square patches of `patch` pixels; a `grid` coarser
    than the patches is their average over squares (`pool`).
    For efficientnet_lite: the first `depth` of the 16 MBConv blocks of Lite0.
    """

    kind: TowerKind
    image: int
    width: int
    grid: int
    depth: int
    heads: int = 0
    ffn: int = 0
    patch: int = 0

    @property
    def tokens(self) -> int:
        """Image tokens per frame."""
        return self.grid * self.grid

    @property
    def pool(self) -> int:
        """Patches per token along one side; 1 where every patch is a token."""
        return self.image // self.patch // self.grid if self.kind == "siglip" else 1


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """Feed-forwards of `width` in the place of a layer's own: `shared` for every token, `active` of `routed` per token.

    Scores are a `softmax` over the experts, as in DeepSeek-V2, or a `sigmoid` of each, as in DeepSeek-V3, whose chosen
    scores are then divided by their sum; both are multiplied by `scale`. The first `dense` layers have one
    feed-forward. Routed experts are stored in `bits` (4 or 8), one scale per `block` inputs.
    """

    routed: int
    active: int
    shared: int
    width: int
    dense: int = 1
    scoring: Scoring = "sigmoid"
    scale: float = 1.0
    bits: int = 8
    block: int = 128


@dataclass(frozen=True, slots=True)
class TrunkConfig:
    """Llama-shaped decoder; `vocabulary` counts in parameters only (the prompt is folded into the graph).

    With `experts`, `ffn` is the width of the first layers' feed-forward only (`models.nn.moe`). `int8` says how its
    linears are stored (`models.nn.int8`).
    """

    width: int
    depth: int
    heads: int
    ffn: int
    vocabulary: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    experts: ExpertsConfig | None = None
    int8: Int8 = "plain"

    def has_experts(self, layer: int) -> bool:
        """Whether that layer's feed-forward is a mixture."""
        return self.experts is not None and layer >= self.experts.dense


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """One size of the family. `prefix` and `suffix` are prompt tokens before and after the image."""

    name: str
    tower: TowerConfig
    trunk: TrunkConfig
    prefix: int
    suffix: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    lora_rank: int = 16
    lora_alpha: int = 32

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint's metadata."""
        values = asdict(self)
        if self.trunk.experts is None:
            del values["trunk"]["experts"]  # a dense checkpoint says what it said before there were experts
        if self.trunk.int8 == "plain":
            del values["trunk"]["int8"]  # likewise
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> EdgeConfig:
        """The inverse of `to_dict`.

        Raises:
            TypeError, KeyError: a field is missing or unknown.
        """
        experts = values["trunk"].get("experts")
        trunk = {**values["trunk"], "experts": None if experts is None else ExpertsConfig(**experts)}
        return EdgeConfig(
            **{
                **values,
                "tower": TowerConfig(**values["tower"]),
                "trunk": TrunkConfig(**trunk),
                "pixel_mean": tuple(values["pixel_mean"]),
                "pixel_std": tuple(values["pixel_std"]),
            }
        )


NANO = EdgeConfig(
    name="nano",
    tower=TowerConfig(kind="efficientnet_lite", image=224, width=192, grid=7, depth=15),
    trunk=TrunkConfig(width=256, depth=4, heads=4, ffn=704, vocabulary=8),
    prefix=4,
    suffix=1,
    pixel_mean=(127.0, 127.0, 127.0),
    pixel_std=(128.0, 128.0, 128.0),
)
"""EfficientNet-Lite0 up to its 15th block with ImageNet weights, and a small trunk: the embedded default."""

LARGE = EdgeConfig(
    name="1.7b",
    tower=TowerConfig(kind="siglip", image=384, width=1024, grid=24, depth=24, heads=16, ffn=4096, patch=16),
    trunk=TrunkConfig(width=2048, depth=24, heads=16, ffn=5632, vocabulary=102_400, int8="fine"),
    prefix=32,
    suffix=8,
    pixel_mean=(127.5, 127.5, 127.5),
    pixel_std=(127.5, 127.5, 127.5),
)
"""Exactly DeepSeek-VL-1.3B's geometry, 1.753 B parameters with its tied vocabulary."""

LARGE_EXPERTS = replace(
    LARGE,
    name="1.7b-moe",
    trunk=TrunkConfig(
        width=1024, depth=7, heads=8, ffn=2816, vocabulary=102_400,
        experts=ExpertsConfig(routed=128, active=4, shared=1, width=512, scale=2.5),
    ),
)  # fmt: skip
"""The same tower before one dense layer and six of DeepSeek-V3's routed experts: about as many parameters as `1.7b`,
less than a tenth of its trunk's work. Few layers of wide experts, because attention costs by the layer and experts by
the parameter (decision 14 has the figures). No checkpoint of this geometry is published."""

PRESETS = {preset.name: preset for preset in (NANO, LARGE, LARGE_EXPERTS)}
TRAINABLE = tuple(name for name, config in PRESETS.items() if config.tower.kind == "efficientnet_lite")
"""Presets whose tower comes with weights. Training never touches the tower, so a random one would stay random."""


def preset(name: str) -> EdgeConfig:
    """The preset of that name.

    Raises:
        ValueError: naming the presets there are.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


def with_image_tokens(config: EdgeConfig, tokens: int) -> EdgeConfig:
    """The same preset with fewer image tokens per frame, averaged over squares of patches.

    Raises:
        ValueError: naming the numbers this tower can give.
    """
    tower = config.tower
    if tower.kind != "siglip":
        possible = {tower.tokens: tower.grid}
    else:
        patches = tower.image // tower.patch
        possible = {(patches // p) ** 2: patches // p for p in (1, 2, 3, 4) if patches % p == 0}
    if tokens not in possible:
        raise ValueError(f"preset {config.name} gives {', '.join(map(str, possible))} image tokens, not {tokens}")
    return replace(config, tower=replace(tower, grid=possible[tokens]))


def with_expert_bits(config: EdgeConfig, bits: int) -> EdgeConfig:
    """The same preset with routed experts stored in 4 or 8 bits.

    Raises:
        ValueError: the preset has no experts, or there is no kernel for that width.
    """
    if config.trunk.experts is None:
        raise ValueError(f"preset {config.name} has no routed experts")
    if bits not in (4, 8):
        raise ValueError(f"routed experts are stored in 4 or 8 bits, not {bits}")
    return replace(config, trunk=replace(config.trunk, experts=replace(config.trunk.experts, bits=bits)))


def tiny(name: str, *, image: int = 32) -> EdgeConfig:
    """A preset's shape at toy size: seconds instead of minutes, for tests of mechanics."""
    full = preset(name)
    trunk = replace(full.trunk, width=32, depth=2, heads=2, ffn=48, vocabulary=16)
    if trunk.experts is not None:
        experts = replace(trunk.experts, routed=8, active=2, shared=2, width=16, block=16)
        trunk = replace(trunk, depth=3, experts=experts)
    if full.tower.kind == "siglip":
        tower = replace(full.tower, image=image, width=24, grid=image // 8, depth=2, heads=2, ffn=32, patch=8)
    else:
        tower = replace(full.tower, image=image, grid=image // 32)
    return replace(full, name=f"{name}-tiny", tower=tower, trunk=trunk, prefix=2, lora_rank=4, lora_alpha=8)
