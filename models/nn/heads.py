"""Heads and batches for training: class balance, seeded draws, and the convex refit that ends every round."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.nn.device import free_bytes
from models.nn.examples import Examples
from models.nn.model import Trunk


def reduced_precision(device: torch.device) -> torch.autocast:
    """bfloat16 for matrix products where the device has instructions for it, float32 elsewhere.

    Only training steps run under it; embeddings that heads, calibration and parity rest on are float32.
    """
    able = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=able)


def class_balance(labels: Tensor, classes: int) -> Tensor:
    """Weights [N] of mean 1 that give every class that occurs the same total."""
    counts = torch.bincount(labels, minlength=classes).float()
    present = (counts > 0).sum()
    return (len(labels) / (present * counts.clamp_min(1)))[labels]


def fit_head(
    embedding: Tensor, labels: Tensor, weights: Tensor, *, classes: int, decay: float, prior: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression on standardised embeddings, folded back to raw ones: weight [C, D], bias [C].

    Minimises ``mean w CE + decay |W - prior|^2`` by L-BFGS, the bias of classes without labels kept at zero by the same
    penalty; convex, so the same data give the same head.

    Args:
        prior: raw weights [C, D] to stay near; zero when left out.
    """
    mean, std = embedding.mean(0), embedding.std(0).clamp_min(1e-3)
    z = (embedding - mean) / std
    centre = torch.zeros(classes, z.shape[1]) if prior is None else prior * std
    unseen = torch.bincount(labels, minlength=classes) == 0
    weight = centre.clone().requires_grad_()
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (F.cross_entropy(z @ weight.T + bias, labels, reduction="none") * weights).mean()
        loss = loss + decay * ((weight - centre).square().sum() + bias[unseen].square().sum())
        loss.backward()
        return loss

    optimiser.step(closure)
    raw = weight.detach() / std
    return raw, bias.detach() - raw @ mean


def word_scale(embedding: Tensor, labels: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    """The scale s at which ``s rows . f`` alone explains the labels best, at least 0; one-dimensional and convex."""
    similarity = (embedding - embedding.mean(0)) @ rows.T
    scale = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([scale], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (F.cross_entropy(scale * similarity, labels, reduction="none") * weights).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    return scale.detach().clamp_min(0)


@torch.no_grad()
def embed(trunk: Trunk, tokens: NDArray[np.float16], *, batch: int = 64) -> Tensor:
    """Tokens [N, T, C] to float32 embeddings [N, D], computed where the trunk lies; they end on the processor."""
    trunk.eval()
    device = trunk.prefix.device
    parts = [
        trunk(torch.from_numpy(tokens[i : i + batch]).to(device).float()).cpu() for i in range(0, len(tokens), batch)
    ]
    return torch.cat(parts)


class Batches:
    """Seeded draws of tokens in a random orientation, with labels and weights, given on `device`.

    The draws do not depend on the device. Tokens are kept there when they take at most half of its free memory, so
    that no step waits for them; otherwise every batch is copied.
    """

    def __init__(
        self, examples: Examples, classes: int, generator: torch.Generator, *, device: torch.device | None = None
    ) -> None:
        self.generator, self.device = generator, device or torch.device("cpu")
        self.tokens = torch.from_numpy(examples.tokens)
        self.labels = torch.from_numpy(examples.labels)
        self.weights = class_balance(self.labels, classes) * torch.from_numpy(examples.weights)
        if self.tokens.nbytes <= free_bytes(self.device) // 2:
            self.tokens = self.tokens.to(self.device)

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [size, T, C] in float32, labels and weights [size]."""
        rows = torch.randint(len(self.labels), (size,), generator=self.generator)
        views = torch.randint(self.tokens.shape[1], (size,), generator=self.generator)
        at = (rows.to(self.tokens.device), views.to(self.tokens.device))
        tokens = self.tokens[at].to(self.device).float()
        return tokens, self.labels[rows].to(self.device), self.weights[rows].to(self.device)


def refit_head(
    trunk: Trunk, sets: list[Examples], shares: list[float], *, classes: int, decay: float, words: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The head on all sets; `shares` are their total weights, which sum to 1, whatever their sizes.

    Args:
        words: rows of the classes' own words [C, D] (`models.nn.prompt.class_rows`). A class without a label starts as
            its word, at the scale at which the words alone explain the labels best; the others do not hear theirs.
    """
    embedding = torch.cat([embed(trunk, s.tokens[:, 0]) for s in sets])
    labels = torch.cat([torch.from_numpy(s.labels) for s in sets])
    weights = torch.cat(
        [
            class_balance(torch.from_numpy(s.labels), classes) * torch.from_numpy(s.weights) * share / len(s)
            for s, share in zip(sets, shares, strict=True)
        ]
    )
    weights, prior = weights * len(labels), None
    unseen = torch.bincount(labels, minlength=classes) == 0
    if words is not None and unseen.any():
        prior = word_scale(embedding, labels, weights, words) * words * unseen[:, None]
    return fit_head(embedding, labels, weights, classes=classes, decay=decay, prior=prior)
