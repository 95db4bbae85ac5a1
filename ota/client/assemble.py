"""Building a base's files from chunks: copied from files already here, fetched otherwise.

A file grows in its part file chunk by chunk; after an interruption the chunks that are whole are kept and the rest is
cut off. The peak on disk is the file and one chunk. What the chunks are is in the verified manifest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from models.contracts.base import sha256_hex
from models.contracts.control import ReportReason
from models.contracts.model_manifest import BaseFile, Chunk
from ota.client.blobs import BlobStore
from ota.errors import SecurityError

FetchChunk = Callable[[Chunk], Path]
"""Brings a chunk to disk, verified, and says where."""


def assemble(file: BaseFile, store: BlobStore, fetch_chunk: FetchChunk) -> None:
    """Put `file` together in the store.

    Raises:
        SecurityError: DIGEST, its chunks are right but the whole is not: the manifest contradicts itself.
        OtaError: what `fetch_chunk` raises; complete chunks are kept.
    """
    if file.chunks[0].sha256 == file.sha256:
        # A file of one chunk is that chunk: fetching it completes the very part file that would be assembled.
        fetch_chunk(file.chunks[0])
        store.adopt(file.sha256)
        store.remember_chunks(file.sha256, file.chunks)
        return
    part = store.part(file.sha256)
    part.touch()
    with part.open("r+b") as out:
        held = _whole_chunks(out, file.chunks)
        known = store.known_chunks()
        for chunk in file.chunks[held:]:
            data = _copied(known.get(chunk.sha256), chunk)
            if data is None:
                source = fetch_chunk(chunk)
                data = source.read_bytes()
                store.drop_part(chunk.sha256)
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
        out.seek(0)
        whole = hashlib.file_digest(out, "sha256").hexdigest()
    if whole != file.sha256:
        store.drop_part(file.sha256)
        raise SecurityError(f"{file.name}: the chunks do not make up the signed file", reason=ReportReason.DIGEST)
    store.adopt(file.sha256)
    store.remember_chunks(file.sha256, file.chunks)


def missing_bytes(file: BaseFile, store: BlobStore) -> int:
    """Room the file still needs: the rest of it and its largest chunk."""
    part = store.part(file.sha256)
    held = part.stat().st_size if part.exists() else 0
    return max(file.length - held, 0) + max(chunk.length for chunk in file.chunks)


def _whole_chunks(out: BinaryIO, chunks: list[Chunk]) -> int:
    """How many leading chunks are there and whole; the file is cut behind them."""
    held = offset = 0
    for chunk in chunks:
        data = out.read(chunk.length)
        if len(data) < chunk.length or sha256_hex(data) != chunk.sha256:
            break
        held, offset = held + 1, offset + chunk.length
    out.seek(offset)
    out.truncate()
    return held


def _copied(place: tuple[Path, int, int] | None, chunk: Chunk) -> bytes | None:
    if place is None or place[2] != chunk.length:
        return None
    path, offset, length = place
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except FileNotFoundError:
        return None  # the base it came from was removed meanwhile
    return data if sha256_hex(data) == chunk.sha256 else None
