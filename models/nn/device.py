"""Where torch computes, chosen by one word for every command and service that trains."""

from __future__ import annotations

import torch


class NoDevice(ValueError):
    """The wanted device is not one this machine and this torch can use."""


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is the first CUDA device where there is one, else the processor.

    Raises:
        NoDevice: an unknown word, or a CUDA device that torch does not see here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as fault:
        raise NoDevice(f"device {name!r}: write auto, cpu, cuda or cuda:NUMBER") from fault
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
        raise NoDevice(f"device {name!r}: write auto, cpu, cuda or cuda:NUMBER")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise NoDevice(f"device {name!r}: torch {torch.__version__} sees {seen} CUDA devices here; use cpu or auto")
    return device


def describe(device: torch.device) -> str:
    """What a record says of it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a CUDA device; 0 for the processor, where data already lie in its memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
