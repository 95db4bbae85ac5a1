"""DeepSeek-Edge in torch: tower -> standardised tokens -> aligner -> [prefix | image | suffix] -> trunk -> embedding.

The trunk is transformers' Llama, fed with embeddings, with a mixture of experts in the place of most feed-forwards
where the preset says so (`models.nn.moe`); the embedding f is its normalised last token. Linear modules keep Llama's
names, so PEFT targets and published checkpoints need no translation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaModel, SiglipVisionConfig, SiglipVisionModel

from models.nn.config import EdgeConfig, TowerConfig
from models.nn.efficientnet import EfficientNetLite
from models.nn.moe import put_experts

TRUNK_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALIGNER_LINEARS = ("fc1", "fc2")
SHORT_SEQUENCE = 128
"""Below this many image tokens plain attention trains faster on a CPU than the fused one (measured: 0.15 to 0.19 s a
step in bfloat16 for 32 frames of 49 tokens)."""


class SiglipTower(nn.Module):
    """SigLIP without its pooling head: pixels [B, 3, H, W] to tokens [B, N, C], averaged over squares of patches where
    the preset asks for fewer tokens.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.model = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=config.width, intermediate_size=config.ffn, num_hidden_layers=config.depth,
                num_attention_heads=config.heads, image_size=config.image, patch_size=config.patch,
                hidden_act="gelu", vision_use_head=False,
            )
        )  # fmt: skip
        self.width, self.grid, self.pool = config.width, config.grid, config.pool

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.model(pixels).last_hidden_state
        if self.pool == 1:
            return patches
        squares = patches.unflatten(1, (self.grid, self.pool, self.grid, self.pool))
        return squares.mean(dim=(2, 4)).flatten(1, 2)


class Aligner(nn.Module):
    """Tower width to trunk width: two linears with GELU between, as in DeepSeek-VL."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Standardise(nn.Module):
    """``(x - mean) / std`` per channel, fixed when the base is trained; part of the exported tower."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, tokens: Tensor) -> None:
        """Set mean and standard deviation from tokens [..., C]."""
        flat = tokens.flatten(0, -2).float()
        self.mean.copy_(flat.mean(0))
        self.std.copy_(flat.std(0).clamp_min(1e-4))

    def forward(self, tokens: Tensor) -> Tensor:
        return (tokens - self.mean) / self.std


class Trunk(nn.Module):
    """Image tokens [B, N, C] to the embedding [B, D]: everything an adapter can change."""

    def __init__(self, config: EdgeConfig) -> None:
        super().__init__()
        trunk = config.trunk
        self.int8 = trunk.int8
        self.aligner = Aligner(config.tower.width, trunk.width)
        self.prefix = nn.Parameter(torch.randn(config.prefix, trunk.width) * 0.02)
        self.suffix = nn.Parameter(torch.randn(config.suffix, trunk.width) * 0.02)
        self.model = LlamaModel(
            LlamaConfig(
                hidden_size=trunk.width, intermediate_size=trunk.ffn, num_hidden_layers=trunk.depth,
                num_attention_heads=trunk.heads, num_key_value_heads=trunk.heads, vocab_size=trunk.vocabulary,
                rms_norm_eps=trunk.norm_eps, rope_parameters={"rope_type": "default", "rope_theta": trunk.rope_theta},
                max_position_embeddings=config.prefix + config.tower.tokens + config.suffix,
                attn_implementation="eager" if config.tower.tokens < SHORT_SEQUENCE else "sdpa",
                use_cache=False, pad_token_id=None, bos_token_id=None, eos_token_id=None,
            )
        )  # fmt: skip
        put_experts(self.model.layers, trunk)

    def forward(self, tokens: Tensor) -> Tensor:
        batch = tokens.shape[0]
        image = self.aligner(tokens)
        sequence = torch.cat([self.prefix.expand(batch, -1, -1), image, self.suffix.expand(batch, -1, -1)], dim=1)
        return self.model(inputs_embeds=sequence).last_hidden_state[:, -1]


class DeepSeekEdge(nn.Module):
    """The whole model: pixels [B, 3, H, W], preprocessed, to the embedding [B, D]."""

    def __init__(self, config: EdgeConfig) -> None:
        super().__init__()
        self.config = config
        tower = config.tower
        self.tower = EfficientNetLite(tower.depth) if tower.kind == "efficientnet_lite" else SiglipTower(tower)
        if self.tower.width != tower.width:
            raise ValueError(f"preset {config.name}: the tower gives {self.tower.width} channels, not {tower.width}")
        self.standardise = Standardise(tower.width)
        self.trunk = Trunk(config)

    def tokens(self, pixels: Tensor) -> Tensor:
        """Standardised image tokens [B, N, C]."""
        return self.standardise(self.tower(pixels))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.trunk(self.tokens(pixels))


def parameter_count(module: nn.Module) -> int:
    """All parameters, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())
