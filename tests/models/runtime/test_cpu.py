from __future__ import annotations

from pathlib import Path

import pytest

from models.runtime.cpu import physical_cores, read_processor

ZEN4 = "model name\t: AMD EPYC 9R14\nflags\t\t: fpu sse avx2 avx512bw avx512_vnni\n\nmodel name\t: another\n"
SKYLAKE = "model name\t: Intel Xeon 8175M\nflags\t\t: fpu avx2 avx512bw\n"
HASWELL = "model name\t: Intel Core i5-4590\nflags\t\t: fpu avx2\n"
SAPPHIRE = "model name\t: Intel Xeon 8488C\nflags\t\t: avx2 avx512bw avx512_vnni amx_int8 avx_vnni\n"
ORIN = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("text", "level", "best"),
    [
        (ZEN4, "exact", "AVX-512 VNNI"),
        (SAPPHIRE, "exact", "AMX int8 tiles"),
        (ORIN, "exact", "aarch64 dot product"),
        (SKYLAKE, "saturates", "AVX-512 without VNNI"),
        (HASWELL, "saturates", "AVX2 without VNNI"),
    ],
)
def test_the_best_kernel_decides(tmp_path: Path, text: str, level: str, best: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    found = read_processor(tmp_path / "cpuinfo", cores=4)
    assert (found.int8, found.kernels[0]) == (level, best)
    assert best in found.advice


def test_the_first_core_names_the_machine(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(ZEN4)
    assert read_processor(tmp_path / "cpuinfo").name == "AMD EPYC 9R14"


def test_an_unknown_machine_claims_nothing(tmp_path: Path) -> None:
    found = read_processor(tmp_path / "none", machine="riscv64")
    assert (found.int8, found.kernels) == ("unknown", ())
    assert "edgeloop models parity" in found.advice


def test_hyperthreads_of_one_core_count_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert physical_cores(tmp_path, range(4)) == 2
    assert physical_cores(tmp_path, [1, 3]) == 1


def test_a_hidden_topology_counts_every_processor(tmp_path: Path) -> None:
    assert physical_cores(tmp_path, range(6)) == 6
