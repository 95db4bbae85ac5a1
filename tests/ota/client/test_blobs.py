"""The blob store keeps what it is told to and hands out nothing that changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.contracts.base import sha256_hex
from models.contracts.model_manifest import Chunk
from ota.client import BlobStore
from ota.errors import SecurityError
from tests.ota.kit import FastFs


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", fs=FastFs())


def test_what_is_added_can_be_read(store: BlobStore) -> None:
    sha = store.add(b"weights")
    assert store.has(sha)
    assert store.read(sha) == b"weights"
    assert store.path(sha).read_bytes() == b"weights"


def test_a_changed_blob_is_refused_and_removed(store: BlobStore) -> None:
    sha = store.add(b"weights")
    store.path(sha).write_bytes(b"wEights")
    with pytest.raises(SecurityError):
        store.read(sha)
    assert not store.has(sha)
    with pytest.raises(FileNotFoundError):
        store.read(sha)


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_only_digests_are_names(store: BlobStore, name: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        store.path(name)


def test_keep_removes_the_rest_oldest_first_and_says_how_much(store: BlobStore) -> None:
    shas = [store.add(bytes([n]) * 100) for n in range(4)]
    store.remember_chunks(shas[0], [Chunk(sha256=sha256_hex(b"c"), length=1)])
    for age, sha in enumerate(shas):
        os.utime(store.path(sha), (age, age))
    assert store.keep({shas[1], shas[3]}) == 200
    assert [store.has(sha) for sha in shas] == [False, True, False, True]
    assert store.known_chunks() == {}


def test_keep_leaves_an_unfinished_download_alone(store: BlobStore) -> None:
    sha = sha256_hex(b"later")
    store.part(sha).write_bytes(b"la")
    store.keep(set())
    assert store.part(sha).read_bytes() == b"la"
    store.drop_parts_except({sha})
    assert store.part(sha).exists()
    store.drop_parts_except(set())
    assert not store.part(sha).exists()


def test_a_damaged_chunk_index_costs_nothing_but_bytes(store: BlobStore) -> None:
    sha = store.add(b"file")
    store.remember_chunks(sha, [Chunk(sha256=sha, length=4)])
    assert store.known_chunks() == {sha: (store.path(sha), 0, 4)}
    (store.folder / ".chunks" / sha).write_bytes(b"\0\0")
    assert store.known_chunks() == {}
