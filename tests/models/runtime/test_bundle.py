"""A trained model comes back from its folder byte for byte, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.runtime.bundle import BadBundle, Bundle, is_complete, read_adapter, read_starting, write_starting
from tests.models.runtime.tiny import tiny_base, tiny_release


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    base, release = tiny_base(), tiny_release()
    files = {}
    for file in base.manifest.files:
        files[file.name] = tmp_path / file.name
        files[file.name].write_bytes(base.files[file.sha256])
    return Bundle(base.manifest, files, b"checkpoint", release.manifest, release.blobs, {"parity": 0.001})


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    write_starting(tmp_path / "kept", bundle)
    return tmp_path / "kept"


def test_it_comes_back_and_loads_as_a_box_would_load_it(bundle: Bundle, folder: Path) -> None:
    back = read_starting(folder)
    assert back.base == bundle.base
    assert back.adapter == bundle.adapter
    assert back.metrics == {"parity": 0.001}
    assert back.checkpoint == b"checkpoint"
    assert back.model(release=3).release == 3
    assert read_adapter(folder) == (bundle.adapter, dict(bundle.blobs))


def test_an_interrupted_run_is_not_complete(folder: Path) -> None:
    assert is_complete(folder)
    (folder / "complete").unlink()
    assert not is_complete(folder)


@pytest.mark.parametrize("name", ["base.json", "adapter.json", "checkpoint.safetensors", "files/tower.bin"])
def test_a_missing_file_says_which_folder_is_not_whole(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises((BadBundle, OSError), match=r"kept"):
        read_starting(folder)


@pytest.mark.parametrize("name", ["base.json", "adapter.json"])
def test_a_damaged_manifest_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"{")
    with pytest.raises(BadBundle, match="it holds no whole model; make it again"):
        read_starting(folder)


def test_a_flipped_bit_is_refused(folder: Path) -> None:
    for path in (folder / "files" / "trunk.bin", next((folder / "blobs").iterdir())):
        good = path.read_bytes()
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        with pytest.raises(BadBundle, match="is damaged: make the model"):
            read_starting(folder)
        path.write_bytes(good)
    read_starting(folder)
