"""Heads and batches for training: class balance, seeded draws, and the convex refit that ends every round."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.nn.examples import Examples
from models.nn.model import Trunk


def reduced_precision() -> torch.autocast:
    """bfloat16 for matrix products where the processor has instructions for it, float32 elsewhere.

    Only training steps run under it; embeddings that heads, calibration and parity rest on are float32.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
    """Tokens [N, T, C] to embeddings [N, D]."""
    trunk.eval()
    parts = [trunk(torch.from_numpy(tokens[i : i + batch].astype(np.float32))) for i in range(0, len(tokens), batch)]
    return torch.cat(parts)


class Batches:
    """Seeded draws of tokens in a random orientation, with labels and weights."""

    def __init__(self, examples: Examples, classes: int, generator: torch.Generator) -> None:
        self.examples, self.generator = examples, generator
        self.labels = torch.from_numpy(examples.labels)
        self.weights = class_balance(self.labels, classes) * torch.from_numpy(examples.weights)

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.randint(len(self.labels), (size,), generator=self.generator)
        views = torch.randint(self.examples.tokens.shape[1], (size,), generator=self.generator)
        tokens = torch.from_numpy(self.examples.tokens[rows.numpy(), views.numpy()].astype(np.float32))
        return tokens, self.labels[rows], self.weights[rows]


def refit_head(
    trunk: Trunk, sets: list[Examples], shares: list[float], *, classes: int, decay: float
) -> tuple[Tensor, Tensor]:
    """The head on all sets; `shares` are their total weights, which sum to 1, whatever their sizes."""
    embedding = torch.cat([embed(trunk, s.tokens[:, 0]) for s in sets])
    labels = torch.cat([torch.from_numpy(s.labels) for s in sets])
    weights = torch.cat(
        [
            class_balance(torch.from_numpy(s.labels), classes) * torch.from_numpy(s.weights) * share / len(s)
            for s, share in zip(sets, shares, strict=True)
        ]
    )
    return fit_head(embedding, labels, weights * len(labels), classes=classes, decay=decay)
