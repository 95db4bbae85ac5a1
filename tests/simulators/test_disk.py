"""The simulated disk forgets exactly what a real one may forget, and nothing else."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from models.disk import Fs, write_atomic
from simulators.disk import PowerCut, SimulatedDisk


def outcomes(folder: Path, act: Callable[[SimulatedDisk], None], name: str = "f", **knobs: bool) -> set[bytes | None]:
    """Every content of `name` that power cuts after `act` leave over 60 seeds."""
    seen: set[bytes | None] = set()
    for seed in range(60):
        root = folder / str(seed)
        root.mkdir(parents=True)
        disk = SimulatedDisk(rng=random.Random(seed), **knobs)
        act_in = root / name
        disk.root = root
        act(disk)
        disk.restart()
        seen.add(act_in.read_bytes() if act_in.exists() else None)
    return seen


def write(disk: SimulatedDisk, data: bytes, name: str = "f") -> None:
    disk.write_new(disk.root / name, data)


def test_it_is_the_production_port() -> None:
    port: Fs = SimulatedDisk(rng=random.Random(1))
    assert port.free_bytes(Path("/")) > 0


def test_a_new_name_is_lost_or_kept_until_its_folder_is_synced(tmp_path: Path) -> None:
    assert outcomes(tmp_path / "a", lambda disk: write(disk, b"new")) == {b"new", None}

    def synced(disk: SimulatedDisk) -> None:
        write(disk, b"new")
        disk.sync_folder(disk.root)

    assert outcomes(tmp_path / "b", synced) == {b"new"}


def test_content_that_was_not_synced_is_torn(tmp_path: Path) -> None:
    def act(disk: SimulatedDisk) -> None:
        write(disk, b"0123456789")
        disk.sync_folder(disk.root)

    seen = outcomes(tmp_path, act, sync_files=False)
    assert {b"0123456789", b""} < seen
    assert any(0 < len(data or b"") < 10 for data in seen)


def test_a_rename_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    def act(disk: SimulatedDisk) -> None:
        write(disk, b"old")
        disk.sync_folder(disk.root)
        write(disk, b"new", "g")
        disk.sync_folder(disk.root)
        disk.rename(disk.root / "g", disk.root / "f")

    assert outcomes(tmp_path / "f", act) == {b"old", b"new"}

    def lost_both(disk: SimulatedDisk) -> None:
        act(disk)
        disk.restart()
        assert b"new" in {path.read_bytes() for path in disk.root.iterdir()}

    outcomes(tmp_path / "g", lost_both)


def test_an_unlinked_file_may_come_back(tmp_path: Path) -> None:
    def act(disk: SimulatedDisk) -> None:
        write(disk, b"x")
        disk.sync_folder(disk.root)
        disk.unlink(disk.root / "f")

    assert outcomes(tmp_path, act) == {b"x", None}


def test_write_atomic_survives_a_cut_at_every_step(tmp_path: Path) -> None:
    for step in range(20):
        root = tmp_path / str(step)
        root.mkdir()
        disk = SimulatedDisk(rng=random.Random(step))
        write_atomic(root / "f", b"old", fs=disk)
        disk.cut_in(step)
        try:
            write_atomic(root / "f", b"new", fs=disk)
            done = True
        except PowerCut:
            done = False
        if not done:
            with pytest.raises(PowerCut):
                disk.sync_folder(root)  # nothing runs on a machine without power
        disk.restart()
        assert (root / "f").read_bytes() in ([b"new"] if done else [b"old", b"new"])


def test_injected_faults_come_when_told(tmp_path: Path) -> None:
    disk = SimulatedDisk(rng=random.Random(1))
    disk.fail("write_new", errno.EROFS, after=1, times=1, match="/f")
    disk.write_new(tmp_path / "f", b"1")
    disk.write_new(tmp_path / "g", b"1")
    with pytest.raises(OSError, match="Read-only"):
        disk.write_new(tmp_path / "f", b"2")
    assert (tmp_path / "f").read_bytes() == b"1"
    disk.write_new(tmp_path / "f", b"3")


def test_a_full_disk_takes_what_fits_and_says_so(tmp_path: Path) -> None:
    disk = SimulatedDisk(rng=random.Random(1), capacity=10)
    disk.write_new(tmp_path / "f", b"123456")
    assert disk.free_bytes(tmp_path) == 4
    with pytest.raises(OSError, match="No space left"):
        disk.write_new(tmp_path / "g", b"123456")
    assert (tmp_path / "g").read_bytes() == b"1234"
    disk.unlink(tmp_path / "g")
    assert disk.free_bytes(tmp_path) == 4
