"""A disk that keeps only what was synced: the production `Fs` port over a real folder, with power cuts and faults.

Live files are real, so readers and SQLite need no seam; this class knows in addition what the platter would hold. A
power cut leaves a legal state of a POSIX file system: content that was not synced is dropped, torn or kept; every
change of a folder since its last sync (a new name, a rename, an unlink) is kept or dropped on its own, in any order.
A rename is atomic: the target is the old file or the new, and the source never goes before the target is there.

SQLite's files are not written through `Fs`. With WAL and ``synchronous=FULL`` every returned commit is durable, so a
cut leaves them as they are: the committed index of that moment; an unfinished transaction is rolled back at the next
open. Folders are never lost; the programs that use this make theirs once, before anything depends on them.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.disk import REAL_FS

Op = Literal["write_new", "rename", "unlink", "sync_folder", "free_bytes"]


class PowerCut(BaseException):
    """The machine lost power. Call `SimulatedDisk.restart` and open everything anew."""


@dataclass(slots=True, eq=False)
class _File:
    data: bytes
    synced: bool
    before: bytes = b""


@dataclass(slots=True, eq=False)
class _Change:
    """A name that came (`file`) or went (None). A source's going waits for `needs`, its target's coming."""

    name: str
    file: _File | None
    folder: _Folder
    needs: _Change | None = None
    kept: bool | None = None

    def keep(self) -> None:
        if self.needs is not None and not self.needs.kept:
            self.needs.keep()
        if self.file is None:
            self.folder.durable.pop(self.name, None)
        elif not self.kept:
            self.folder.durable[self.name] = self.file
        self.kept = True


@dataclass(slots=True, eq=False)
class _Folder:
    """`durable` is what the platter names; `pending` the changes since the last sync, in order."""

    durable: dict[str, _File] = field(default_factory=dict)
    pending: list[_Change] = field(default_factory=list)

    def change(self, name: str, file: _File | None, needs: _Change | None = None) -> _Change:
        change = _Change(name, file, self, needs)
        self.pending.append(change)
        return change


@dataclass(slots=True)
class _Fault:
    op: Op
    code: int
    after: int
    times: int
    match: str


class SimulatedDisk:
    """See the module; implements `models.disk.Fs`.

    Args:
        rng: decides what a power cut keeps.
        capacity: bytes the disk holds, None for plenty.
        sync_files, sync_folders: False models a program that forgot that fsync.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        capacity: int | None = None,
        sync_files: bool = True,
        sync_folders: bool = True,
    ) -> None:
        self.rng, self.capacity = rng, capacity
        self.sync_files, self.sync_folders = sync_files, sync_folders
        self.steps = 0
        self.calls: list[tuple[Op, str]] = []
        self._live: dict[Path, _File] = {}
        self._folders: dict[Path, _Folder] = {}
        self._faults: list[_Fault] = []
        self._cut_in: int | None = None
        self._dead = False

    # -- knobs -----------------------------------------------------------------------------------------------------

    def fail(self, op: Op, code: int = errno.EIO, *, after: int = 0, times: int = 1, match: str = "") -> None:
        """Let `op` on paths that contain `match` raise `code` `times` times, after `after` calls that succeed."""
        self._faults.append(_Fault(op, code, after, times, match))

    def heal(self) -> None:
        """Forget all injected faults."""
        self._faults.clear()

    def cut_in(self, steps: int | None) -> None:
        """Raise `PowerCut` at the step that comes after `steps` more. Every call has one before and one after it."""
        self._cut_in = steps

    def restart(self) -> None:
        """After a cut, or instead of one: the real folder becomes what the platter could hold, and power is back."""
        for path in list(self._live):
            path.unlink(missing_ok=True)
        self._live.clear()
        for state in self._folders.values():
            for change in state.pending:
                if self.rng.random() < 0.5:
                    change.keep()
        for folder, state in self._folders.items():
            state.pending.clear()
            for name, file in state.durable.items():
                file.data, file.synced = self._surviving(file), True
                (folder / name).write_bytes(file.data)
                self._live[folder / name] = file
        self._cut_in, self._dead = None, False

    @property
    def used(self) -> int:
        """Bytes of all live files this disk knows."""
        return sum(len(file.data) for file in self._live.values())

    # -- models.disk.Fs --------------------------------------------------------------------------------------------

    def write_new(self, path: Path, data: bytes) -> None:
        self._before("write_new", path)
        old = self._live.get(path)
        file = old or _File(b"", synced=True)
        file.before, file.synced = file.data, False
        self._live[path] = file
        if old is None:
            self._folder(path.parent).change(path.name, file)
        file.data = data
        room = self._room(path, len(data))
        if room is not None:
            file.data = data[:room]
            path.write_bytes(file.data)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        path.write_bytes(data)
        self._step()
        file.synced = self.sync_files
        self._step()

    def rename(self, source: Path, target: Path) -> None:
        self._before("rename", source)
        file = self._live.pop(source, None)
        if file is None:
            file = _File(source.read_bytes(), synced=True)
            self._folder(source.parent).durable[source.name] = file
        REAL_FS.rename(source, target)
        self._live[target] = file
        coming = self._folder(target.parent).change(target.name, file)
        self._folder(source.parent).change(source.name, None, coming)
        self._step()

    def unlink(self, path: Path) -> None:
        self._before("unlink", path)
        path.unlink(missing_ok=True)
        if self._live.pop(path, None) is not None:
            self._folder(path.parent).change(path.name, None)
        self._step()

    def sync_folder(self, folder: Path) -> None:
        self._before("sync_folder", folder)
        state = self._folder(folder)
        if self.sync_folders:
            for change in state.pending:
                change.keep()
            state.pending.clear()
        self._step()

    def free_bytes(self, folder: Path) -> int:
        self._fault("free_bytes", folder)
        return 1 << 50 if self.capacity is None else max(0, self.capacity - self.used)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _before(self, op: Op, path: Path) -> None:
        self.calls.append((op, str(path)))
        self._step()
        self._fault(op, path)

    def _step(self) -> None:
        if self._dead:
            raise PowerCut
        self.steps += 1
        if self._cut_in is not None:
            self._cut_in -= 1
            if self._cut_in < 0:
                self._dead = True
                raise PowerCut

    def _fault(self, op: Op, path: Path) -> None:
        for fault in self._faults:
            if fault.op != op or fault.match not in str(path) or fault.times <= 0:
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.times -= 1
            raise OSError(fault.code, os.strerror(fault.code), str(path))

    def _room(self, path: Path, wanted: int) -> int | None:
        """Bytes that fit when `wanted` do not."""
        if self.capacity is None:
            return None
        others = sum(len(file.data) for other, file in self._live.items() if other != path)
        room = max(0, self.capacity - others)
        return room if wanted > room else None

    def _folder(self, folder: Path) -> _Folder:
        return self._folders.setdefault(folder, _Folder())

    def _surviving(self, file: _File) -> bytes:
        if file.synced:
            return file.data
        kept = self.rng.randrange(len(file.data) + 1)
        torn = bytearray(file.data)
        torn[kept:] = bytes(len(torn) - kept)
        return self.rng.choice([file.data, file.before, b"", file.data[:kept], bytes(torn)])
