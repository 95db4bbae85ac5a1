"""Continual LoRA learning: one lineage, replayed, balanced, averaged.

Every round continues the incumbent's adapter on all labels so far plus replayed memory, with

    L = s mean_new w_i CE(z, y) + (1 - s) mean_memory w_j CE(z, y),   w = class balance x sqrt(inclusion weight)

with s = n / (n + trust) up to one half for n new labels, keeps an exponential moving average of the weights, refits the
head on the embeddings of everything labelled (convex, weighed the same way), and returns raw parts: calibration,
thresholds and judgement belong to the caller.
Sources: LoRA, Hu et al. (ICLR 2022); LoRA+, Hayou et al. (ICML 2024); balanced replay, see docs/learning.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.nn.config import EdgeConfig
from models.nn.device import choose_device
from models.nn.examples import Examples
from models.nn.heads import Batches, reduced_precision, refit_head
from models.nn.lora import from_feeds, lora_parameters, quantized_copy, to_feeds, with_lora
from models.nn.model import DeepSeekEdge, Trunk

F32 = NDArray[np.float32]
Progress = Callable[[float], None]
FIRST_HEAD = 96
"""Images per set that start the head; the refit at the end sees all of them."""


@dataclass(frozen=True, slots=True)
class AdaptSettings:
    """`steps` between the bounds, about `epochs` passes over the new labels; rates are for AdamW.

    `trust` is the number of new labels that weigh as much as the memory. `ema` is the averaging window as a share of
    the steps. `head_decay` is the L2 penalty of the refitted head on standardised embeddings. `device` is a word for
    `models.nn.device.choose_device`. `compiled` layers train about twice as fast on a GPU once half a minute was spent
    on the compiler (docs/benchmarks).
    """

    batch_new: int = 16
    batch_memory: int = 16
    epochs: float = 3.0
    min_steps: int = 30
    max_steps: int = 200
    rate: float = 3e-4
    rate_ratio_b: float = 8.0
    head_rate: float = 1e-3
    decay: float = 1e-4
    dropout: float = 0.0
    warm_up: float = 0.1
    clip: float = 1.0
    ema: float = 0.3
    head_decay: float = 0.03
    trust: float = 100.0
    threads: int = 2
    device: str = "auto"
    compiled: bool = False

    def share(self, new: int) -> float:
        """What the new labels weigh against the memory: ``n / (n + trust)``, at most one half.

        A handful of labels, picked because they are hard, must not outweigh what the line already knows.
        """
        return min(0.5, new / (new + self.trust))

    def steps(self, new: int) -> int:
        """Steps for `new` labelled images."""
        return max(self.min_steps, min(self.max_steps, math.ceil(self.epochs * new / self.batch_new)))


@dataclass(frozen=True, slots=True)
class Adapted:
    """`lora` are the graph's inputs; `weight` [C, D] and `bias` [C] the refitted linear head; `losses` per step."""

    lora: dict[str, F32]
    weight: F32
    bias: F32
    losses: list[float]


def _initial_head(
    trunk: Trunk, sets: list[Examples], shares: list[float], *, classes: int, decay: float, words: Tensor | None
) -> nn.Linear:
    weight, bias = refit_head(trunk, sets, shares, classes=classes, decay=decay, words=words)
    head = nn.Linear(weight.shape[1], classes)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head


def adapt(
    model: DeepSeekEdge,
    *,
    new: Examples,
    memory: Examples,
    classes: int,
    start: dict[str, F32] | None,
    settings: AdaptSettings,
    seed: int,
    words: F32 | None = None,
    progress: Progress = lambda share: None,
) -> Adapted:
    """One round of learning.

    Args:
        new: labelled samples from the line, all so far; weights are ``min(1 / pi, 20) ** 0.5`` normalised to mean 1.
        memory: replayed images; what the line must not forget.
        start: the incumbent's LoRA as graph inputs, or None to begin a lineage.
        words: see `models.nn.heads.refit_head`.

    Raises:
        NoDevice: this machine cannot compute where the settings say.
    """
    device = choose_device(settings.device)
    torch.manual_seed(seed)
    torch.set_num_threads(settings.threads)
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    trunk = with_lora(quantized_copy(model.trunk, device), config, dropout=settings.dropout)
    if start is not None:
        from_feeds(trunk, config, start)
    share = settings.share(len(new))
    sets = [memory, new]
    shares = [1 - share, share]
    rows = None if words is None else torch.from_numpy(words)
    head = _initial_head(
        trunk, [s.spread(FIRST_HEAD) for s in sets], shares, classes=classes, decay=settings.head_decay, words=rows
    ).to(device)
    batches = [Batches(s, classes, generator, device=device) for s in sets]
    losses = _train(trunk, head, config, sources=batches, settings=settings, progress=progress)
    weight, bias = refit_head(trunk, sets, shares, classes=classes, decay=settings.head_decay, words=rows)
    return Adapted(lora=to_feeds(trunk, config), weight=weight.numpy(), bias=bias.numpy(), losses=losses)


def _schedule(step: int, steps: int, warm_up: float) -> float:
    rising = (step + 1) / (warm_up * steps + 1)
    return min(1.0, rising) * 0.5 * (1 + math.cos(math.pi * step / steps))


class LoraTraining:
    """One round's optimiser, schedule and running average; `step` learns from one batch.

    Args:
        trunk: with LoRA injected; only its LoRA and the `head` change.
        steps: how many there will be, for the schedule and the averaging window.
    """

    def __init__(
        self, trunk: Trunk, head: nn.Linear, config: EdgeConfig, *, steps: int, settings: AdaptSettings
    ) -> None:
        a, b = lora_parameters(trunk, config)
        self.trunk, self.head, self.settings, self.lora = trunk, head, settings, [*a, *b]
        self._device = trunk.prefix.device
        groups = [
            {"params": a, "lr": settings.rate},
            {"params": b, "lr": settings.rate * settings.rate_ratio_b},
            {"params": list(head.parameters()), "lr": settings.head_rate},
        ]
        self._optimiser = torch.optim.AdamW(groups, weight_decay=settings.decay)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda k: _schedule(k, steps, settings.warm_up)
        )
        self._averaged = [p.detach().clone() for p in self.lora]
        self._renewal = 1 / (settings.ema * steps + 1)
        self._layers = trunk.model.layers
        if settings.compiled:  # layer by layer: they share their code, so the compiler works once and not once a layer
            trunk.model.layers = nn.ModuleList([torch.compile(layer) for layer in self._layers])
        trunk.train()

    def step(self, tokens: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Tokens [B, T, C], labels and weights [B] on the trunk's device. The loss, which need not be computed yet."""
        with reduced_precision(self._device):
            embedding = self.trunk(tokens)
        loss = (F.cross_entropy(self.head(embedding.float()), labels, reduction="none") * weights).mean()
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.lora, self.settings.clip)
        self._optimiser.step()
        self._schedule.step()
        torch._foreach_lerp_(self._averaged, [p.detach() for p in self.lora], self._renewal)
        return loss.detach()

    @torch.no_grad()
    def finish(self) -> None:
        """Put the average in the place of the last weights, and plain layers in the place of compiled ones."""
        self.trunk.model.layers = self._layers
        for average, parameter in zip(self._averaged, self.lora, strict=True):
            parameter.copy_(average)


def _train(
    trunk: Trunk,
    head: nn.Linear,
    config: EdgeConfig,
    *,
    sources: list[Batches],
    settings: AdaptSettings,
    progress: Progress,
) -> list[float]:
    new = len(sources[1])
    steps = settings.steps(new)
    training = LoraTraining(trunk, head, config, steps=steps, settings=settings)
    sizes = (settings.batch_memory, settings.batch_new)
    share = settings.share(new)
    emphasis = torch.cat([torch.full((n,), s * sum(sizes) / n) for n, s in zip(sizes, (1 - share, share), strict=True)])
    emphasis = emphasis.to(sources[0].device)
    losses: list[Tensor] = []
    for step in range(steps):
        drawn = [source.draw(size) for source, size in zip(sources, sizes, strict=True)]
        tokens, labels, weights = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        losses.append(training.step(tokens, labels, weights * emphasis))
        progress((step + 1) / steps)
    training.finish()
    return torch.stack(losses).tolist()
