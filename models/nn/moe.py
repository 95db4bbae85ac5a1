"""DeepSeek's mixture of experts in torch: a router, routed experts of which a few see each token, and shared experts.

    y = scale * sum_{e in top(x)} p_e(x) expert_e(x) + shared(x),   expert(x) = W_down (silu(W_gate x) * W_up x)

`softmax` scoring is DeepSeek-V2's (arXiv:2405.04434): the best scores, as they are. `sigmoid` scoring is DeepSeek-V3's
(arXiv:2412.19437): experts are chosen by score plus a correction that balanced their load in training, and weighed by
the scores alone, divided by their sum. One group of experts; attention stays Llama's, not multi-head latent attention,
which saves cached keys and values that a model read at its last token never keeps.

Parameters have transformers' names and shapes. Routed experts and the router are frozen in a line's learning; LoRA goes
to attention and shared experts (`models.nn.export.lora_groups`). The router computes in float32 whatever the rest does:
a rounded score is another expert.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.nn.blockwise import dequantized_blocks
from models.nn.config import ExpertsConfig, TrunkConfig

INIT_STD = 0.02
"""Of random weights: transformers' `initializer_range`."""


class Router(nn.Module):
    """Tokens [T, D] to the chosen experts and their weights, both [T, active]."""

    def __init__(self, config: ExpertsConfig, width: int) -> None:
        super().__init__()
        self.active, self.scoring, self.scale = config.active, config.scoring, config.scale
        self.weight = nn.Parameter(torch.randn(config.routed, width) * INIT_STD)
        self.register_buffer("e_score_correction_bias", torch.zeros(config.routed))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.weight.float())
            if self.scoring == "softmax":
                weights, chosen = logits.softmax(-1).topk(self.active, sorted=False)
                return chosen, weights * self.scale
            scores = logits.sigmoid()
            chosen = (scores + self.e_score_correction_bias.float()).topk(self.active, sorted=False).indices
            weights = scores.gather(-1, chosen)
            return chosen, weights / weights.sum(-1, keepdim=True) * self.scale


class RoutedExperts(nn.Module):
    """All routed experts' weights: gate above up [E, 2 F, D], and down [E, D, F]."""

    def __init__(self, config: ExpertsConfig, width: int) -> None:
        super().__init__()
        self.bits, self.block = config.bits, config.block
        self.gate_up_proj = nn.Parameter(torch.randn(config.routed, 2 * config.width, width) * INIT_STD)
        self.down_proj = nn.Parameter(torch.randn(config.routed, width, config.width) * INIT_STD)

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Tokens [T, D] with the router's answer to [T, D]. Each expert sees its tokens in one product."""
        active = chosen.shape[-1]
        order = chosen.flatten().argsort(stable=True)
        token = order // active
        counts = torch.bincount(chosen.flatten(), minlength=len(self.gate_up_proj)).tolist()
        parts = []
        stored = zip(self.gate_up_proj.unbind(), self.down_proj.unbind(), strict=True)  # one gradient each, not E
        for rows, (gate_up, down) in zip(x[token].split(counts), stored, strict=True):
            if len(rows):
                gate, up = F.linear(rows, gate_up).chunk(2, dim=-1)
                parts.append(F.linear(F.silu(gate) * up, down))
        weighed = torch.cat(parts).float() * weights.flatten()[order, None]
        return torch.zeros(x.shape, device=x.device).index_add(0, token, weighed).to(x.dtype)

    @torch.no_grad()
    def dequantize_(self) -> None:
        """In place: what the exported kernel multiplies with."""
        for expert in (*self.gate_up_proj, *self.down_proj):
            stored = dequantized_blocks(expert.float().cpu().numpy()[None], bits=self.bits, block=self.block)
            expert.copy_(torch.from_numpy(stored[0]))


class SharedExperts(nn.Module):
    """One SwiGLU as wide as all shared experts together: what every token goes through."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        for linear in (self.gate_proj, self.up_proj, self.down_proj):
            nn.init.normal_(linear.weight, std=INIT_STD)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class MixtureOfExperts(nn.Module):
    """A layer's feed-forward: [B, S, D] to [B, S, D]."""

    def __init__(self, config: ExpertsConfig, width: int) -> None:
        super().__init__()
        if not 0 < config.active <= config.routed or config.shared < 1:
            raise ValueError("a mixture needs a shared expert, and no more active experts than routed ones")
        self.config = config
        self.gate = Router(config, width)
        self.experts = RoutedExperts(config, width)
        self.shared_experts = SharedExperts(width, config.shared * config.width)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        return self.experts(flat, *self.gate(flat)).view_as(x) + self.shared_experts(x)


def put_experts(layers: nn.ModuleList, trunk: TrunkConfig) -> None:
    """Replace the feed-forward of every decoder layer that has experts, in place."""
    for i, layer in enumerate(layers):
        if trunk.experts is not None and trunk.has_experts(i):
            layer.mlp = MixtureOfExperts(trunk.experts, trunk.width)
