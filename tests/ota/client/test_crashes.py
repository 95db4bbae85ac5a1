"""The box loses power at every step of an update: it restarts into the old release or finishes the new one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models.contracts.control import ReportReason
from ota.client import ReleaseClient
from ota.errors import SecurityError
from tests.ota.kit import LINE, CrashingFs, Plant, PowerCut

Box = Callable[..., ReleaseClient]


def update(client: ReleaseClient) -> int:
    return client.fetch(client.check(LINE, "stable")).channel.release


def test_power_cut_at_every_step_of_an_update(plant: Plant, box: Box, tmp_path: Path) -> None:
    first = box()
    old = first.fetch(first.check(LINE, "stable"))
    before = shutil.copytree(tmp_path / "box", tmp_path / "before", symlinks=True)
    earlier = shutil.copytree(plant.folder / "metadata", tmp_path / "earlier")
    plant.release(2)
    later = shutil.copytree(plant.folder / "metadata", tmp_path / "later")
    whole = CrashingFs()
    update(box(folder=shutil.copytree(before, tmp_path / "whole", symlinks=True), fs=whole))
    assert whole.calls > 20
    finished_floors = 0
    for step in range(whole.calls):
        folder = shutil.copytree(before, tmp_path / str(step), symlinks=True)
        with pytest.raises(PowerCut):
            update(box(folder=folder, fs=CrashingFs(step, after=step % 3 == 0)))
        restarted = box(folder=folder)
        assert all(restarted.blobs.intact(sha) for sha in old.digests())
        finished_floors += _refuses(plant, restarted, earlier, later)
        assert update(restarted) == 2
        assert _refuses(plant, restarted, earlier, later)
    assert finished_floors > 0


def test_power_cut_at_every_step_of_first_contact(plant: Plant, box: Box, tmp_path: Path) -> None:
    whole = CrashingFs()
    update(box(folder=tmp_path / "whole", fs=whole))
    for step in range(whole.calls):
        with pytest.raises(PowerCut):
            update(box(folder=tmp_path / str(step), fs=CrashingFs(step, after=step % 2 == 0)))
        assert update(box(folder=tmp_path / str(step))) == 1


def _refuses(plant: Plant, client: ReleaseClient, earlier: Path, later: Path) -> bool:
    """Whether the earlier repository is refused as a rollback; the later one is served again afterwards."""
    _serve(plant, earlier)
    try:
        client.check(LINE, "stable")
    except SecurityError as fault:
        return fault.reason is ReportReason.ROLLBACK
    finally:
        _serve(plant, later)
    return False


def _serve(plant: Plant, metadata: Path) -> None:
    shutil.rmtree(plant.folder / "metadata")
    shutil.copytree(metadata, plant.folder / "metadata")
