"""One sample as one self-describing file, so that the index can be rebuilt from the blobs alone.

    0 magic "ELSP" | 4 version 1 | 5 priority u8 | 6 envelope bytes u32 | 10 image bytes u64 | 18 sha256 of the image
    50 envelope (canonical JSON) | image | crc32c u32 over everything before

Integers are big endian. A file lies at ``blobs/<last two digits of the sid>/<sid>.smp``; the first digits of a UUIDv7
are time and would put an hour's samples into one folder. All 256 folders exist from the start: a put makes none.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.contracts.base import Malformed, decode, sha256_hex
from models.contracts.chunk import crc32c
from models.contracts.sample import SampleMeta
from models.contracts.uplink import MAX_SAMPLE_BYTES, Priority
from models.disk import Fs

MAGIC = b"ELSP"
VERSION = 1
MAX_META_BYTES = 28 << 10
"""An envelope must fit an offer of 32 KiB with its item around it."""
MAX_QUARANTINE_FILES = 256

_HEAD = struct.Struct(">4sBBIQ32s")
_CRC = struct.Struct(">I")
_PRIORITIES = list(Priority)


class CorruptBlob(Malformed):
    """The file is not what a put wrote."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A decoded file. `meta_bytes` are the exact bytes whose digest rides in the offer."""

    prio: Priority
    meta: SampleMeta
    meta_bytes: bytes
    image: bytes


def encode_blob(meta_bytes: bytes, image: bytes, sha256: str, prio: Priority) -> bytes:
    """The file's bytes."""
    place = _PRIORITIES.index(prio)
    body = _HEAD.pack(MAGIC, VERSION, place, len(meta_bytes), len(image), bytes.fromhex(sha256)) + meta_bytes + image
    return body + _CRC.pack(crc32c(body))


def decode_blob(data: bytes) -> Blob:
    """The inverse of `encode_blob`, trusting nothing: not the lengths, not the digest.

    Raises:
        CorruptBlob: naming the first thing that is wrong.
    """
    if len(data) < _HEAD.size + _CRC.size:
        raise CorruptBlob(f"a blob of {len(data)} bytes")
    magic, version, place, meta_length, image_length, digest = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or place >= len(_PRIORITIES):
        raise CorruptBlob("not a version 1 blob")
    if len(data) != _HEAD.size + meta_length + image_length + _CRC.size or image_length > MAX_SAMPLE_BYTES:
        raise CorruptBlob("blob length does not match its header")
    if _CRC.unpack_from(data, len(data) - _CRC.size)[0] != crc32c(memoryview(data)[: -_CRC.size]):
        raise CorruptBlob("blob checksum mismatch")
    meta_bytes = data[_HEAD.size : _HEAD.size + meta_length]
    image = data[_HEAD.size + meta_length : -_CRC.size]
    if bytes.fromhex(sha256_hex(image)) != digest:
        raise CorruptBlob("image digest mismatch")
    try:
        meta = decode(SampleMeta, meta_bytes)
    except Malformed as fault:
        raise CorruptBlob(f"envelope: {fault}") from fault
    return Blob(prio=_PRIORITIES[place], meta=meta, meta_bytes=meta_bytes, image=image)


class BlobFolder:
    """The files below the spool's folder. Every writing call goes through `Fs`; the caller keeps the order."""

    def __init__(self, folder: Path, *, fs: Fs) -> None:
        self._fs = fs
        self._blobs, self._tmp, self._quarantine = folder / "blobs", folder / "tmp", folder / "quarantine"

    def prepare(self) -> None:
        """Make the folders and delete what interrupted puts left in ``tmp/``."""
        present = {path.name for path in self._blobs.iterdir()} if self._blobs.is_dir() else set()
        missing = [self._blobs / f"{i:02x}" for i in range(256) if f"{i:02x}" not in present]
        for path in [self._tmp, self._quarantine, *missing]:
            path.mkdir(parents=True, exist_ok=True)
        if missing:
            self._fs.sync_folder(self._blobs)
            self._fs.sync_folder(self._blobs.parent)
        for leftover in self._tmp.iterdir():
            self._fs.unlink(leftover)

    def path(self, sid: str) -> Path:
        return self._blobs / sid[-2:] / f"{sid}.smp"

    def write(self, sid: str, data: bytes) -> None:
        """Durable when it returns: file synced, renamed, folder synced. A failed descriptor is never used again.

        Raises:
            OSError: nothing is promised; the temporary file is gone or goes at the next start.
        """
        temporary, target = self._tmp / f"{sid}.smp", self.path(sid)
        try:
            self._fs.write_new(temporary, data)
            self._fs.rename(temporary, target)
            self._fs.sync_folder(target.parent)
        except OSError:
            self.discard(sid)
            raise

    def read(self, sid: str) -> Blob:
        """The whole file, checked.

        Raises:
            CorruptBlob: the bytes are wrong, or belong to another sid.
            OSError: it cannot be read.
        """
        blob = decode_blob(self.path(sid).read_bytes())
        if blob.meta.sid != sid:
            raise CorruptBlob(f"the file of {sid} holds {blob.meta.sid}")
        return blob

    def size(self, sid: str) -> int | None:
        """Bytes of the file, None when there is none."""
        try:
            return self.path(sid).stat().st_size
        except FileNotFoundError:
            return None

    def remove(self, sid: str) -> None:
        """Unlink; not synced, since a file that comes back is deleted again or answered `have`."""
        self._fs.unlink(self.path(sid))

    def discard(self, sid: str) -> bool:
        """Remove what a failed put left, as far as a failing disk allows. False: something may remain."""
        gone = True
        for path in (self._tmp / f"{sid}.smp", self.path(sid)):
            try:
                self._fs.unlink(path)
            except OSError:
                gone = False
        return gone

    def set_aside(self, path: Path) -> None:
        """Move a file into ``quarantine/`` for a person to look at."""
        if path.exists():
            self._fs.rename(path, self._quarantine / path.name)
            self._fs.sync_folder(self._quarantine)

    def thin_quarantine(self) -> None:
        """Keep the newest `MAX_QUARANTINE_FILES` samples: enough for a person, no leak for the disk."""
        files = sorted(self._quarantine.glob("*.smp"), key=lambda path: path.stat().st_mtime)
        for path in files[:-MAX_QUARANTINE_FILES]:
            self._fs.unlink(path)

    def files(self) -> Iterator[Path]:
        """Every blob file there is."""
        for folder in (self._blobs / f"{i:02x}" for i in range(256)):
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(".smp"))
            yield from (folder / name for name in names)
