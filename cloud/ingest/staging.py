"""Local files of ingest: uploads under way (`StagingFiles`) and the synced copy kept after them (`Landing`).

Staged bytes need not survive anything: lost ones are sent again, and the digest at the end tells. A landing copy is
fsynced before the object store is asked, because SeaweedFS does not fsync each PUT: if the store loses what it
confirmed, the copy restores it (`upkeep`). It also lets an upload whose store was down finish without a byte resent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from models.contracts.base import sha256_hex
from models.disk import REAL_FS, Fs, write_atomic


class StagingFiles:
    """One file per sid."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, sid: str, offset: int, data: bytes) -> None:
        """Place `data` at `offset`; the file grows as needed.

        Raises:
            OSError: no space or a bad disk; the chunk is not held.
        """
        descriptor = os.open(self._folder / sid, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            view, at = memoryview(data), offset
            while view:
                written = os.pwrite(descriptor, view, at)
                view, at = view[written:], at + written
        finally:
            os.close(descriptor)

    def read(self, sid: str) -> bytes | None:
        """Everything staged for `sid`, or None."""
        try:
            return (self._folder / sid).read_bytes()
        except FileNotFoundError:
            return None

    def drop(self, sid: str) -> None:
        """Forget the bytes of `sid`."""
        (self._folder / sid).unlink(missing_ok=True)

    def sids(self) -> list[str]:
        """Every sid with staged bytes."""
        return sorted(path.name for path in self._folder.iterdir())


class Landing:
    """Synced copies by digest."""

    def __init__(self, folder: Path, *, fs: Fs = REAL_FS) -> None:
        self._folder, self._fs = folder, fs
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, sha256: str, data: bytes) -> None:
        """Keep `data`; after it returns the copy survives a power cut.

        Raises:
            OSError: it was not kept.
        """
        if self.read(sha256) is not None:
            return
        path = self._place(sha256)
        if not path.parent.exists():
            path.parent.mkdir(exist_ok=True)
            self._fs.sync_folder(self._folder)
        write_atomic(path, data, fs=self._fs)

    def read(self, sha256: str) -> bytes | None:
        """The copy, or None when there is none or the disk has damaged it (then it is removed)."""
        path = self._place(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if sha256_hex(data) != sha256:
            path.unlink(missing_ok=True)
            return None
        return data

    def drop(self, sha256: str) -> None:
        """Remove the copy."""
        self._place(sha256).unlink(missing_ok=True)

    def written_at(self, sha256: str) -> float | None:
        """When the copy was made or last touched, Unix seconds; None when there is none."""
        try:
            return self._place(sha256).stat().st_mtime
        except FileNotFoundError:
            return None

    def touch(self, sha256: str, at_s: float) -> None:
        """Let the copy's age begin again."""
        os.utime(self._place(sha256), (at_s, at_s))

    def older_than(self, before_s: float) -> Iterator[str]:
        """Digests of copies last written before `before_s` (Unix seconds)."""
        for path in self._folder.glob("??/*"):
            if path.stat().st_mtime < before_s:
                yield path.name

    def _place(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256
