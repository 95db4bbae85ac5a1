"""The repository folder: ``metadata/`` and ``targets/`` laid out as they are served, written so that a crash is safe.

Every write is temporary file, fsync, rename, fsync of the folder. Versioned metadata and content-addressed files are
write-once. One lock file serialises writers of all processes. What to write is the publisher's decision.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from models.contracts.base import sha256_hex
from models.contracts.tuf_layout import base_chunk_url, check_target_path
from models.disk import REAL_FS, Fs, write_atomic
from ota.errors import ConflictError, NotPublished, PublishError
from ota.paths import hashed_path

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


class RepositoryFiles:
    """Reading and writing one repository folder."""

    def __init__(self, folder: Path, *, fs: Fs = REAL_FS) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self._fs = fs

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the repository's one writer lock; waits for another writer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def lay_out(self) -> None:
        """Make the folders, empty as they are: without them a server takes a new repository for a broken disk."""
        for folder in (self.metadata, self.targets):
            self._make(folder)

    def newest(self, role: str) -> int:
        """Highest version of `role` on disk, 0 for none."""
        suffix = f".{role}.json"
        names = (path.name for path in self.metadata.glob(f"*{suffix}"))
        return max((int(head) for name in names if (head := name.removesuffix(suffix)).isdecimal()), default=0)

    def read(self, role: str, version: int | None = None) -> bytes:
        """Bytes of one version of a role, the newest by default.

        Raises:
            NotPublished: there is none.
        """
        name = f"{role}.json" if role == "timestamp" else f"{version or self.newest(role)}.{role}.json"
        try:
            return (self.metadata / name).read_bytes()
        except FileNotFoundError as missing:
            raise NotPublished(f"no {role} metadata in {self.metadata}: is this the repository folder?") from missing

    def root(self) -> Root:
        return _signed(Root, self.read("root"))

    def role(self, role: str) -> Targets:
        return _signed(Targets, self.read(role))

    def snapshot(self) -> Snapshot:
        return _signed(Snapshot, self.read("snapshot"))

    def timestamp(self) -> Timestamp:
        return _signed(Timestamp, self.read("timestamp"))

    def write_role(self, role: str, version: int, data: bytes) -> None:
        """Write one version, once.

        Raises:
            ConflictError: that version exists with other bytes.
        """
        path = self.metadata / f"{version}.{role}.json"
        if path.exists() and path.read_bytes() != data:
            raise ConflictError(f"{path.name} exists with other bytes: start again from the current state")
        self._write(path, data)

    def write_timestamp(self, data: bytes) -> None:
        """Replace ``timestamp.json``: the moment at which boxes see everything written before."""
        self._write(self.metadata / "timestamp.json", data)

    def add_target(self, path: str, data: bytes) -> TargetFile:
        """Write a target below its digest and return its entry.

        Raises:
            PublishError: the path is not allowed.
        """
        self._store(hashed_path(_allowed(path), sha256_hex(data)), data)
        return TargetFile.from_data(path, data, ["sha256"])

    def read_target(self, target: TargetFile) -> bytes:
        """Bytes of a listed target, verified.

        Raises:
            PublishError: the file is missing or differs from its entry.
        """
        path = self.targets / hashed_path(_allowed(target.path), target.hashes["sha256"])
        try:
            data = path.read_bytes()
            target.verify_length_and_hashes(data)
        except (OSError, RepositoryError) as fault:
            raise PublishError(f"target {target.path} is damaged: restore {path} from a backup ({fault})") from fault
        return data

    def add_chunk(self, family: str, data: bytes) -> None:
        """Write a chunk of a base file below its digest."""
        self._store(base_chunk_url(family, sha256_hex(data)), data)

    def _store(self, relative: str, data: bytes) -> None:
        path = self.targets / relative
        if path.exists() and path.stat().st_size == len(data):
            return
        self._write(path, data)

    def _write(self, path: Path, data: bytes) -> None:
        self._make(path.parent)
        write_atomic(path, data, fs=self._fs)

    def _make(self, folder: Path) -> None:
        for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
            missing.mkdir(exist_ok=True)
            self._fs.sync_folder(missing.parent)


def _allowed(path: str) -> str:
    try:
        return check_target_path(path)
    except ValueError as fault:
        raise PublishError(str(fault)) from fault


def _signed(kind: type[T], data: bytes) -> T:
    try:
        signed = Metadata[T].from_bytes(data).signed
    except RepositoryError as fault:
        raise PublishError(f"damaged {kind.__name__.lower()} metadata: restore it from a backup ({fault})") from fault
    if not isinstance(signed, kind):
        raise PublishError(f"expected {kind.__name__.lower()} metadata, found {signed.type}")
    return signed


def same_targets(current: Mapping[str, TargetFile], proposed: Mapping[str, TargetFile]) -> bool:
    """Whether everything listed now is listed in `proposed` with the same digest and length."""
    return all(path in proposed and proposed[path].to_dict() == entry.to_dict() for path, entry in current.items())
