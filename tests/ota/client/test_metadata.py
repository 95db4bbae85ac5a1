"""The hooks into python-tuf still exist and do what they are used for."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError
from tuf.ngclient import Updater
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from ota.client.limits import Limits
from ota.client.metadata import MetadataFetcher, PowerSafeUpdater
from ota.client.transport import Transport
from tests.ota.kit import CrashingFs, Plant
from tests.ota.stage import Stage


@pytest.mark.parametrize("name", ["_persist_file", "_update_root_symlink"])
def test_the_overridden_methods_are_pythons_tufs(name: str) -> None:
    ours, theirs = getattr(PowerSafeUpdater, name), getattr(Updater, name)
    assert inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys()


def test_every_file_goes_through_the_durable_seam(plant: Plant, stage: Stage, tmp_path: Path) -> None:
    fs = CrashingFs()
    updater = _updater(plant, stage, tmp_path, fs)
    updater.refresh()
    files = [path for path in tmp_path.joinpath("cache").rglob("*.json") if not path.is_symlink()]
    assert len(files) == 4
    assert fs.calls >= 2 * len(files)
    assert (tmp_path / "cache" / "root.json").resolve().name == "1.root.json"


def test_the_reference_time_is_ours(plant: Plant, stage: Stage, tmp_path: Path) -> None:
    assert "reference_time" in inspect.getsource(TrustedMetadataSet)
    updater = _updater(plant, stage, tmp_path, CrashingFs(), now=datetime(2040, 1, 1, tzinfo=UTC))
    with pytest.raises(RepositoryError, match="expired"):
        updater.refresh()


def test_versions_and_keys_are_seen(plant: Plant, stage: Stage, tmp_path: Path) -> None:
    updater = _updater(plant, stage, tmp_path, CrashingFs())
    updater.refresh()
    updater.get_targetinfo("channel/cells/stable.json")
    roles = updater.seen("channel-cells", "adapter-cells")
    assert set(roles) == {"root", "timestamp", "snapshot", "targets", "channel-cells"}
    assert roles["targets"].delegator == "root"
    assert len(roles["targets"].keyids) == 3
    assert roles["channel-cells"].delegator == "targets"


def _updater(
    plant: Plant, stage: Stage, tmp_path: Path, fs: CrashingFs, now: datetime | None = None
) -> PowerSafeUpdater:
    limits = Limits()
    return PowerSafeUpdater(
        tmp_path / "cache",
        f"{stage.url}/metadata/",
        root=plant.repository.root_bytes(),
        fetcher=MetadataFetcher(Transport(limits), limits),
        now=now or plant.clock(),
        fs=fs,
    )
