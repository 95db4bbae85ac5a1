"""Which int8 kernels this processor has, and whether a W8A8 base is exact on it.

ONNX Runtime multiplies uint8 activations with int8 weights. With dot-product instructions (VNNI on x86, dotprod or i8mm
on aarch64) the sums are exact. AVX2 and AVX-512 without VNNI add pairs of products in 16 bits, which saturate: the same
graph gives other numbers, most of all where activations are large. Such a processor needs weights of 7 bits
(`reduce_range`), and a base quantized for the others must not run there; the golden frames would refuse it too, but
later and less clearly.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
TOPOLOGY = Path("/sys/devices/system/cpu")
Level = Literal["exact", "saturates", "unknown"]
_DOT_PRODUCT = {
    "amx_int8": "AMX int8 tiles",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "i8mm": "aarch64 int8 matrix multiply",
    "asimddp": "aarch64 dot product",
}
_PLAIN = {"avx512bw": "AVX-512 without VNNI", "avx2": "AVX2 without VNNI"}


@dataclass(frozen=True, slots=True)
class Processor:
    """`kernels` are the int8 instructions found, best first; `int8` says what W8A8 does here. `cores` are physical."""

    name: str
    machine: str
    cores: int
    kernels: tuple[str, ...]
    int8: Level

    @property
    def advice(self) -> str:
        """One sentence for a person: what to do with a W8A8 base on this processor."""
        if self.int8 == "exact":
            return f"W8A8 per token runs exactly, on {self.kernels[0]}."
        if self.int8 == "saturates":
            return (
                f"W8A8 bases give wrong numbers on {self.kernels[0]}: 16-bit sums saturate. Run them on a processor "
                "with VNNI (x86: Ice Lake, Zen 4 or newer) or dot product (aarch64)."
            )
        return "This processor's int8 instructions are not known here: compare with edgeloop models parity before use."


def physical_cores(topology: Path = TOPOLOGY, cpus: Iterable[int] | None = None) -> int:
    """Cores that this process may use, counted once however many hyperthreads they have: two threads of one core share
    its multipliers, so matrix products gain nothing from the second. A processor that hides its topology counts each.

    Args:
        cpus: the logical processors to count; those of this process when left out.
    """
    given = sorted(os.sched_getaffinity(0) if cpus is None else cpus)
    cores = set()
    for cpu in given:
        try:
            cores.add((topology / f"cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii").strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def read_processor(cpuinfo: Path = CPUINFO, *, machine: str | None = None, cores: int | None = None) -> Processor:
    """What this machine is. Without a readable `cpuinfo` nothing is claimed."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    exact = [name for flag, name in _DOT_PRODUCT.items() if flag in flags]
    plain = [name for flag, name in _PLAIN.items() if flag in flags]
    kernels = tuple(dict.fromkeys(exact or plain))
    level: Level = "exact" if exact else "saturates" if plain else "unknown"
    return Processor(
        name=fields.get("model name") or fields.get("hardware") or platform.processor() or "unknown",
        machine=machine or platform.machine(),
        cores=cores or physical_cores(),
        kernels=kernels,
        int8=level,
    )
