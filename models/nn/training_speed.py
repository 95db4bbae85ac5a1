"""How many images a second LoRA training of a trunk takes in on a device, by batch and compiled or not.

The tower has no part in it: it is frozen and its tokens are kept (`models.nn.examples`), so a step is the trunk's
forward and backward pass, the head, clipping, AdamW and the running average, exactly as `models.nn.adapt` trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.nn.adapt import AdaptSettings, LoraTraining
from models.nn.bench.measure import work
from models.nn.config import EdgeConfig
from models.nn.examples import Examples
from models.nn.heads import Batches
from models.nn.lora import quantized_copy, with_lora
from models.nn.model import DeepSeekEdge, Trunk

WARM_STEPS = 3
GEMM_SIDE = 8192


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One batch size. `tflops` counts forward and input gradients: twice the trunk's work, without LoRA's own products.

    `peak_gb` is the device's memory at its highest, NaN on a processor. A batch that does not fit has only a `note`.
    """

    batch: int
    compiled: bool
    images_per_s: float = float("nan")
    step_ms: float = float("nan")
    tflops: float = float("nan")
    peak_gb: float = float("nan")
    ready_s: float = float("nan")
    note: str = ""


def measure_training(
    model: DeepSeekEdge, examples: Examples, *, classes: int, batches: Sequence[int], compiled: Sequence[bool],
    device: torch.device, steps: int = 10, say: Callable[[str], None] = lambda text: None,
) -> list[SpeedRow]:  # fmt: skip
    """Time `steps` training steps of every batch size, after a few that do not count."""
    rows = []
    for compile_layers in compiled:
        trunk = with_lora(quantized_copy(model.trunk, device), model.config, dropout=0.0)
        for batch in batches:
            settings = AdaptSettings(compiled=compile_layers)
            found = _row(trunk, model.config, examples, classes=classes, batch=batch, settings=settings, steps=steps)
            rows.append(found)
            kind = "compiled layers" if compile_layers else "plain"
            say(f"  {kind}, batch {batch}: {found.note or f'{found.images_per_s:.0f} images/s'}")
        del trunk
        _release(device)
    return rows


def _row(
    trunk: Trunk, config: EdgeConfig, examples: Examples, *,
    classes: int, batch: int, settings: AdaptSettings, steps: int,
) -> SpeedRow:  # fmt: skip
    torch.manual_seed(0)
    device = trunk.prefix.device
    head = nn.Linear(config.trunk.width, classes).to(device)
    source = Batches(examples, classes, torch.Generator().manual_seed(0), device=device)
    training = LoraTraining(trunk, head, config, steps=WARM_STEPS + steps, settings=settings)
    begin = time.perf_counter()
    try:
        for _ in range(WARM_STEPS):
            training.step(*source.draw(batch))
        _wait(device)
        ready = time.perf_counter() - begin
        begin = time.perf_counter()
        for _ in range(steps):
            training.step(*source.draw(batch))
        _wait(device)
    except torch.OutOfMemoryError:
        training.finish()
        del training
        _release(device)
        return SpeedRow(batch, settings.compiled, note="does not fit into the device's memory")
    step = (time.perf_counter() - begin) / steps
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")
    training.finish()
    del training
    _release(device)
    return SpeedRow(
        batch, settings.compiled, images_per_s=batch / step, step_ms=step * 1e3, peak_gb=peak, ready_s=ready,
        tflops=2e-3 * work(config).trunk * batch / step,
    )  # fmt: skip


def gemm_tflops(device: torch.device, *, calls: int = 10) -> float:
    """TFLOP/s of one bfloat16 matrix product of 8192 x 8192 x 8192 (512 on a processor): the device's own ceiling."""
    side = GEMM_SIDE if device.type == "cuda" else 512
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    _wait(device)
    begin = time.perf_counter()
    for _ in range(calls):
        a @ b
    _wait(device)
    return 2e-12 * side**3 * calls / (time.perf_counter() - begin)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
