"""A base file of exactly one chunk: it is that chunk, so both lie in one part file."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.contracts.model_manifest import BaseFile, Chunk
from ota.client.assemble import assemble
from ota.client.blobs import BlobStore
from ota.errors import TransientError
from tests.ota.kit import CHUNK, base_file, content

DATA = content("one-chunk", CHUNK)
FILE = BaseFile.model_validate(base_file("trunk", "trunk.onnx", DATA))


class Fetching:
    """Brings a chunk's bytes to its part file, as a download does."""

    def __init__(self, store: BlobStore) -> None:
        self.store, self.count, self.broken = store, 0, False

    def __call__(self, chunk: Chunk) -> Path:
        self.count += 1
        part = self.store.part(chunk.sha256)
        part.write_bytes(DATA[:100] if self.broken else DATA)
        if self.broken:
            raise TransientError("the line was cut")
        return part


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    return Fetching(BlobStore(tmp_path / "blobs"))


def test_a_file_of_one_chunk_is_fetched_once_and_leaves_no_part(fetching: Fetching) -> None:
    assert len(FILE.chunks) == 1
    assert FILE.chunks[0].sha256 == FILE.sha256
    assemble(FILE, fetching.store, fetching)
    assert fetching.store.read(FILE.sha256) == DATA
    assert fetching.count == 1
    assert not fetching.store.part(FILE.sha256).exists()
    assert fetching.store.known_chunks() == {FILE.sha256: (fetching.store.path(FILE.sha256), 0, CHUNK)}


def test_an_interrupted_one_is_kept_for_the_next_try(fetching: Fetching) -> None:
    fetching.broken = True
    with pytest.raises(TransientError):
        assemble(FILE, fetching.store, fetching)
    assert not fetching.store.has(FILE.sha256)
    assert fetching.store.part(FILE.sha256).read_bytes() == DATA[:100]
    fetching.broken = False
    assemble(FILE, fetching.store, fetching)
    assert fetching.store.read(FILE.sha256) == DATA


def test_its_bytes_serve_a_longer_file_that_begins_with_it(fetching: Fetching) -> None:
    assemble(FILE, fetching.store, fetching)
    longer = BaseFile.model_validate(base_file("trunk", "trunk.onnx", DATA + b"tail"))
    tail = fetching.store.part(longer.chunks[1].sha256)

    def only_the_tail(chunk: Chunk) -> Path:
        assert chunk == longer.chunks[1]
        tail.write_bytes(b"tail")
        return tail

    assemble(longer, fetching.store, only_the_tail)
    assert fetching.store.read(longer.sha256) == DATA + b"tail"
