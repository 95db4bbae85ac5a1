"""Verified bytes on the box, named by their digest and never by a target path.

``blobs/<aa>/<sha256>`` holds what was verified, ``blobs/.part`` what is still arriving, ``blobs/.chunks`` how an
assembled base file is made of chunks, so that the next base fetches only what changed. Which blobs stay is the
caller's decision.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from models.contracts.base import Malformed, canonical, parse_json, sha256_hex
from models.contracts.control import ReportReason
from models.contracts.model_manifest import Chunk
from models.disk import REAL_FS, Fs, write_atomic
from ota.errors import SecurityError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """A folder of verified blobs. Reading hashes again, since a disk is not trusted either."""

    def __init__(self, folder: Path, *, fs: Fs = REAL_FS) -> None:
        self.folder = folder
        self._fs = fs
        self._parts = folder / ".part"
        self._chunks = folder / ".chunks"
        for made in (folder, self._parts, self._chunks):
            made.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be.

        Raises:
            ValueError: no SHA-256 in lower-case hexadecimal.
        """
        if not _DIGEST.fullmatch(sha256):
            raise ValueError(f"not a digest: {sha256[:80]!r}")
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the blob was verified and stored. `intact` and `read` look at its bytes."""
        return self.path(sha256).is_file()

    def read(self, sha256: str) -> bytes:
        """The blob's bytes, hashed as they are read.

        Raises:
            FileNotFoundError: not in the store.
            SecurityError: TAMPERED, the bytes changed on disk. The blob is removed and will be fetched again.
        """
        data = self.path(sha256).read_bytes()
        if sha256_hex(data) != sha256:
            self._discard(sha256)
            raise SecurityError(
                f"blob {sha256[:12]} changed on disk after it was verified", reason=ReportReason.TAMPERED
            )
        return data

    def intact(self, sha256: str) -> bool:
        """Whether the blob is there and its bytes still have its digest; a damaged one is removed."""
        try:
            with self.path(sha256).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                    return True
        except FileNotFoundError:
            return False
        self._discard(sha256)
        return False

    def add(self, data: bytes) -> str:
        """Store verified bytes; returns their digest."""
        sha256 = sha256_hex(data)
        write_atomic(self._made(sha256), data, fs=self._fs)
        return sha256

    def part(self, sha256: str) -> Path:
        """Where a download of that digest collects its bytes: on the same file system as the store."""
        return self._parts / self.path(sha256).name

    def adopt(self, sha256: str) -> None:
        """Take a verified and synced part into the store."""
        target = self._made(sha256)
        self._fs.rename(self.part(sha256), target)
        self._fs.sync_folder(target.parent)
        self.drop_part(sha256)

    def drop_part(self, sha256: str) -> None:
        """Forget an unfinished download."""
        part = self.part(sha256)
        self._fs.unlink(part)
        self._fs.unlink(part.with_suffix(".etag"))

    def drop_parts_except(self, wanted: AbstractSet[str]) -> None:
        """Forget unfinished downloads that no longer lead anywhere."""
        for sha256 in {path.stem for path in self._parts.iterdir()} - wanted:
            if _DIGEST.fullmatch(sha256):
                self.drop_part(sha256)

    def remember_chunks(self, sha256: str, chunks: list[Chunk]) -> None:
        """Note how an assembled file is tiled."""
        document = [[chunk.sha256, chunk.length] for chunk in chunks]
        write_atomic(self._chunks / sha256, canonical(document), fs=self._fs)

    def known_chunks(self) -> dict[str, tuple[Path, int, int]]:
        """Chunk digest -> (file, offset, length) over all assembled files. A hint: check the bytes that come out."""
        known: dict[str, tuple[Path, int, int]] = {}
        for index in sorted(self._chunks.iterdir()):
            offset = 0
            for sha256, length in self._tiling(index):
                known[sha256] = (self.path(index.name), offset, length)
                offset += length
        return known

    def keep(self, wanted: AbstractSet[str]) -> int:
        """Remove every blob that is not in `wanted`, oldest first; returns the bytes freed."""
        freed = 0
        for path in sorted(self._stored(), key=lambda path: path.stat().st_mtime):
            if path.name not in wanted:
                freed += path.stat().st_size
                self._discard(path.name)
        return freed

    def free_bytes(self) -> int:
        """Room left on the store's file system."""
        return self._fs.free_bytes(self.folder)

    def _stored(self) -> Iterator[Path]:
        return (path for path in self.folder.glob("[0-9a-f][0-9a-f]/*") if _DIGEST.fullmatch(path.name))

    def _discard(self, sha256: str) -> None:
        self._fs.unlink(self.path(sha256))
        self._fs.unlink(self._chunks / sha256)

    def _made(self, sha256: str) -> Path:
        path = self.path(sha256)
        if not path.parent.exists():
            path.parent.mkdir(exist_ok=True)
            self._fs.sync_folder(self.folder)
        return path

    def _tiling(self, index: Path) -> list[tuple[str, int]]:
        try:
            return [(str(sha256), int(length)) for sha256, length in parse_json(index.read_bytes())]
        except (OSError, Malformed, TypeError, ValueError):
            self._fs.unlink(index)  # only costs a download of chunks that could have been copied
            return []
