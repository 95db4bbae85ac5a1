"""The blob cache: verified, and the store is the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.objects import DigestConflict, ObjectMissing, StoreUnavailable, blob_key
from cloud.objects.blobs import BlobCache
from models.contracts.base import sha256_hex
from simulators.objects import MemoryObjects


def test_what_is_added_is_read_here_and_elsewhere(tmp_path: Path) -> None:
    objects = MemoryObjects()
    digest = BlobCache(tmp_path / "a", objects).add(b"model")
    assert digest == sha256_hex(b"model")
    other = BlobCache(tmp_path / "b", objects)
    assert other.read(digest) == b"model"
    objects.down = True
    assert other.path(digest).read_bytes() == b"model"
    assert other.read(digest) == b"model"


def test_a_damaged_cached_file_is_fetched_again(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, MemoryObjects())
    digest = cache.add(b"model")
    cache.path(digest).write_bytes(b"rot")
    assert cache.read(digest) == b"model"
    assert cache.path(digest).read_bytes() == b"model"


def test_a_store_with_other_bytes_or_none_is_told(tmp_path: Path) -> None:
    objects = MemoryObjects()
    cache = BlobCache(tmp_path, objects)
    with pytest.raises(ObjectMissing):
        cache.read("a" * 64)
    objects.content[blob_key("a" * 64)] = (b"wrong", "x")
    with pytest.raises(DigestConflict):
        cache.path("a" * 64)
    objects.down = True
    with pytest.raises(StoreUnavailable):
        cache.add(b"more")
