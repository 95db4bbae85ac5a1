"""The starting model: a frozen pretrained tower, and a trunk trained on the line's own first images.

The trunk learns two things at once: the labels, and to keep what the tower saw (mean and maximum of its tokens, by
linear read-out from the embedding). Without the second, an embedding trained on one product has nothing left to tell
another product's defects apart, and no adapter or head can bring it back: on solar cells, trained on monocrystalline
cells only, it raised what 216 polycrystalline labels reach from 0.65 to 0.71 balanced accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.nn.checkpoint import imagenet_tower
from models.nn.config import EdgeConfig
from models.nn.examples import Examples
from models.nn.heads import Batches, reduced_precision, refit_head
from models.nn.lora import quantized_copy
from models.nn.model import DeepSeekEdge


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """`keep` weighs the reconstruction of the tower's view against the labels.

    Few `epochs`, and at least `min_steps`: a trunk that fits its first images to the end has little left to teach
    (decision 8).
    """

    epochs: int = 8
    min_steps: int = 50
    batch: int = 32
    rate: float = 1e-3
    decay: float = 0.05
    keep: float = 1.0
    warm_up: float = 0.1
    clip: float = 1.0
    head_decay: float = 0.01
    threads: int = 2


def new_model(config: EdgeConfig, *, seed: int) -> DeepSeekEdge:
    """A model with a pretrained tower where the preset has one, everything else seeded at random.

    Raises:
        BadCheckpoint: the tower's weights are not installed.
    """
    torch.manual_seed(seed)
    model = DeepSeekEdge(config).eval()
    if config.tower.kind == "efficientnet_lite":
        model.tower.load_state_dict(imagenet_tower(config.tower.depth))
    return model


@torch.inference_mode()
def fit_standardise(model: DeepSeekEdge, pixels: NDArray[np.float32]) -> None:
    """Fix the mean and spread of the tower's channels on preprocessed images [N, 3, H, W], in place."""
    raw = torch.cat([model.tower(torch.from_numpy(pixels[i : i + 16])) for i in range(0, len(pixels), 16)])
    model.standardise.fit(raw)


def _pooled(tokens: Tensor) -> Tensor:
    return torch.cat([tokens.mean(1), tokens.amax(1)], dim=1)


def pretrain(
    model: DeepSeekEdge,
    examples: Examples,
    *,
    classes: int,
    settings: PretrainSettings,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> list[float]:
    """Train the trunk in place on standardised tokens; returns the loss per step."""
    torch.manual_seed(seed)
    torch.set_num_threads(settings.threads)
    batches = Batches(examples, classes, torch.Generator().manual_seed(seed))
    width = model.config.trunk.width
    head, readout = nn.Linear(width, classes), nn.Linear(width, 2 * model.config.tower.width)
    trunk = model.trunk.train()
    parameters = [*trunk.parameters(), *head.parameters(), *readout.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=settings.decay)
    steps = max(settings.min_steps, settings.epochs * len(examples) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.rate, total_steps=steps, pct_start=settings.warm_up
    )
    seen = _pooled(torch.from_numpy(examples.tokens[:, 0].astype(np.float32)))
    mean, std = seen.mean(0), seen.std(0) + 1e-3
    losses: list[float] = []
    for step in range(steps):
        tokens, labels, weights = batches.draw(settings.batch)
        with reduced_precision(tokens.device):
            embedding = trunk(tokens)
        embedding = embedding.float()
        loss = (F.cross_entropy(head(embedding), labels, reduction="none") * weights).mean()
        loss = loss + settings.keep * F.mse_loss(readout(embedding), (_pooled(tokens) - mean) / std)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        progress((step + 1) / steps)
    trunk.eval()
    return losses


def first_head(
    model: DeepSeekEdge, examples: Examples, *, classes: int, settings: PretrainSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The head of release 1 on the trained trunk: weight [C, D], bias [C]."""
    weight, bias = refit_head(
        quantized_copy(model.trunk), [examples], [1.0], classes=classes, decay=settings.head_decay
    )
    return weight.numpy(), bias.numpy()
