"""python-tuf's client made power-safe: its files are synced, its root link is replaced atomically, its bytes come
through our transport, its clock is ours, and every check starts from the factory root.

The TUF workflow itself is `tuf.ngclient.Updater`'s. Four of its internals are used here (`_persist_file`,
`_update_root_symlink`, `_trusted_set`, its `reference_time`); tests/ota/client/test_metadata.py fails when a new
release of tuf moves one of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError
from tuf.api.metadata import Root, Targets
from tuf.ngclient import FetcherInterface, Updater

from models.disk import REAL_FS, Fs, write_atomic
from ota.client.floors import SeenRole
from ota.client.limits import Limits
from ota.client.transport import Transport

TOP_LEVEL = ("timestamp", "snapshot", "targets")


class MetadataFetcher(FetcherInterface):
    """Small files in memory, with the transport's limits."""

    def __init__(self, transport: Transport, limits: Limits) -> None:
        self._transport = transport
        self._limits = limits

    def _fetch(self, url: str) -> Generator[bytes]:
        with self._transport.get(url, total_s=self._limits.metadata_total_s) as reply:
            if reply.status != 200:
                raise DownloadHTTPError(f"HTTP {reply.status} for {url}", reply.status)
            yield from reply.pieces()

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The body of `url`, never more than one piece beyond `max_length` bytes of it read."""
        received = bytearray()
        with contextlib.closing(self._fetch(url)) as pieces:
            for piece in pieces:
                received += piece
                if len(received) > max_length:
                    raise DownloadLengthMismatchError(f"{url}: more than {max_length} bytes")
        return bytes(received)


class PowerSafeUpdater(Updater):
    """One refresh of the metadata. Make a new one per check."""

    def __init__(
        self, cache: Path, url: str, *, root: bytes, fetcher: FetcherInterface, now: datetime, fs: Fs = REAL_FS
    ) -> None:
        self._fs = fs
        cache.mkdir(parents=True, exist_ok=True)
        super().__init__(str(cache), url, fetcher=fetcher, bootstrap=root)
        self._trusted_set.reference_time = now

    def _persist_file(self, filename: str, data: bytes) -> None:
        write_atomic(Path(filename), data, fs=self._fs)

    def _update_root_symlink(self) -> None:
        link = Path(self._dir, "root.json")
        fresh = link.with_name(".root.json.link")
        self._fs.unlink(fresh)
        fresh.symlink_to(os.path.join("root_history", f"{self._trusted_set.root.version}.root.json"))  # noqa: PTH118
        self._fs.rename(fresh, link)
        self._fs.sync_folder(link.parent)

    def seen(self, *delegated: str) -> dict[str, SeenRole]:
        """Version and keys of the top-level roles and of `delegated` ones, as far as they were verified."""
        root = self._trusted_set.root
        roles = {"root": SeenRole(root.version, tuple(root.roles[Root.type].keyids), None)}
        for name in TOP_LEVEL:
            if name in self._trusted_set:
                roles[name] = SeenRole(self._trusted_set[name].version, tuple(root.roles[name].keyids), "root")
        for name in delegated:
            if name in self._trusted_set:
                keyids = tuple(self._trusted_set.targets.get_delegated_role(name).keyids)
                roles[name] = SeenRole(self._trusted_set[name].version, keyids, Targets.type)
        return roles

    @property
    def timestamp_expires(self) -> datetime:
        """When the timestamp in force expires."""
        return self._trusted_set.timestamp.expires
