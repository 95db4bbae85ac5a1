"""Writing files so that a power cut leaves the old content or the new, never a torn one.

`Fs` is the seam every durable writer goes through: tests replace it by a simulated disk that drops, tears and
reorders what was not synced.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Fs(Protocol):
    """The file calls durability rests on. All of them raise `OSError` as the system does."""

    def write_new(self, path: Path, data: bytes) -> None:
        """Create or truncate `path`, write all of `data` and fsync the file."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Atomically replace `target`; durable after `sync_folder`."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file; a missing one is fine."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """fsync a folder, so that its entries survive a power cut."""
        ...

    def free_bytes(self, folder: Path) -> int:
        """Bytes an ordinary process may still write on that file system."""
        ...


class RealFs:
    """The real disk."""

    def write_new(self, path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, folder: Path) -> int:
        stats = os.statvfs(folder)
        return stats.f_bavail * stats.f_frsize


REAL_FS: Fs = RealFs()


def write_atomic(path: Path, data: bytes, *, fs: Fs = REAL_FS) -> None:
    """Replace `path` by `data` durably: temporary file in the same folder, fsync, rename, fsync of the folder.

    Raises:
        OSError: nothing was replaced; the temporary file may remain and is overwritten next time.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    fs.write_new(temporary, data)
    fs.rename(temporary, path)
    fs.sync_folder(path.parent)
