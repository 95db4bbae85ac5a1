from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ota.client import Limits, ReleaseClient
from ota.keys import KeyFolder, ceremony
from tests.ota.kit import LINE, OTHER_LINE, PASSPHRASE, FastFs, Plant
from tests.ota.stage import Server, Stage, serving


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFolder:
    return ceremony(tmp_path_factory.mktemp("keys") / "k", lines=[LINE, OTHER_LINE], passphrase=PASSPHRASE)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, keys: KeyFolder) -> Path:
    """A repository with base 1 and adapters 1 to 3, release 1 published."""
    plant = Plant(tmp_path_factory.mktemp("template") / "repository", keys)
    plant.repository.create(keys, [LINE, OTHER_LINE])
    plant.add_base()
    for release in (1, 2, 3):
        plant.add_adapter(release)
    plant.release(1)
    return plant.folder


@pytest.fixture
def plant(tmp_path: Path, template: Path, keys: KeyFolder) -> Plant:
    shutil.copytree(template, tmp_path / "repository")
    return Plant(tmp_path / "repository", keys)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def stage(plant: Plant, server: Server) -> Stage:
    return server.show(plant.folder)


@pytest.fixture
def box(tmp_path: Path, plant: Plant, stage: Stage) -> Callable[..., ReleaseClient]:
    """Makes the box's client; a second call is the same box after a restart."""
    root = plant.repository.root_bytes()

    def make(**changes: Any) -> ReleaseClient:
        options: dict[str, Any] = {
            "folder": tmp_path / "box",
            "root": root,
            "url": stage.url,
            "now": plant.clock,
            "fs": FastFs(),
            "limits": Limits(connect_s=2, idle_s=2, metadata_total_s=5, transfer_total_s=10),
            **changes,
        }
        return ReleaseClient(**options)

    return make
