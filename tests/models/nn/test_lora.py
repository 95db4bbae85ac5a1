"""Mixing adapters: the mean of products, not the product of means."""

from __future__ import annotations

import numpy as np
import pytest

from models.nn.export import lora_groups, lora_shapes
from models.nn.lora import interpolate
from tests.models.nn.test_export import random_lora
from tests.models.nn.toy import toy


def products(lora: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    config = toy().model.config
    found = {}
    for group in lora_groups(config):
        for i, module in enumerate(group.modules):
            cut = slice(i * config.lora_rank, (i + 1) * config.lora_rank)
            found[module] = lora[group.a_name()][:, cut] @ lora[group.b_name(module.rsplit(".", 1)[1])]
    return found


def low_rank(seed: int) -> dict[str, np.ndarray]:
    """An adapter whose products have half the rank, so that two of them fit into one."""
    config = toy().model.config
    lora, half = random_lora(toy(), seed), config.lora_rank // 2
    for group in lora_groups(config):
        for module in group.modules:
            lora[group.b_name(module.rsplit(".", 1)[1])][half:] = 0
    return lora


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_mix_that_fits_the_rank_is_exact(share: float) -> None:
    new, old = low_rank(1), low_rank(2)
    mixed = interpolate(new, old, share, toy().model.config)
    assert {name: array.shape for name, array in mixed.items()} == lora_shapes(toy().model.config)
    a, b, got = products(new), products(old), products(mixed)
    for module, product in got.items():
        assert np.allclose(product, share * a[module] + (1 - share) * b[module], atol=1e-5), module


def test_averaging_factors_is_not_averaging_products() -> None:
    new, old = low_rank(1), low_rank(2)
    naive = {name: (new[name] + old[name]) / 2 for name in new}
    a, b, got = products(new), products(old), products(naive)
    worst = max(float(np.abs(got[m] - (a[m] + b[m]) / 2).max()) for m in got)
    assert worst > 0.01


def test_a_mix_beyond_the_rank_is_the_best_approximation() -> None:
    config = toy().model.config
    new, old = random_lora(toy(), 1), random_lora(toy(), 2)
    mixed, a, b = products(interpolate(new, old, 0.5, config)), products(new), products(old)
    for module, product in mixed.items():
        target = (a[module] + b[module]) / 2
        singular = np.linalg.svd(target, compute_uv=False)
        best = float(np.sqrt((singular[config.lora_rank :] ** 2).sum()))
        assert np.linalg.norm(product - target) == pytest.approx(best, rel=1e-3)
