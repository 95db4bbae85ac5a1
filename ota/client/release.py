"""The box's side of a release: find out which one the line runs, verify it, bring its bytes here.

`check` reads signed metadata only and costs one small request when nothing is new. `fetch` brings and verifies what is
missing and may be repeated after any interruption. What to do with a release (eligibility, slots, probation) is the
agent's; so are retries: the errors of `ota.errors` say what kind of trouble it is.
"""

from __future__ import annotations

import fcntl
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from models.contracts.control import ReportReason
from models.contracts.release_manifest import ChannelManifest
from models.contracts.tuf_layout import BASE_ROLE, POLICIES, adapter_role, channel_path, channel_role
from models.disk import REAL_FS, Fs
from ota.client import floors as numbers
from ota.client import rules
from ota.client.blobs import BlobStore
from ota.client.contents import Contents, Release
from ota.client.download import Downloader
from ota.client.faults import classified
from ota.client.floors import Floors, FloorStore
from ota.client.limits import Limits, Monotonic
from ota.client.metadata import MetadataFetcher, PowerSafeUpdater
from ota.client.transport import Transport
from ota.errors import BlockedError, RefusedError, SecurityError, TransientError

log = logging.getLogger(__name__)
CLOCK_STEP = timedelta(minutes=1)
"""The stored clock is rewritten when it moved by this much, so an idle box does not wear its flash."""


class ReleaseClient:
    """One box's view of the repository. One process at a time per folder, guarded by a lock file.

    Args:
        folder: the client's own state: ``metadata/`` (a cache), ``floors/``, ``blobs/``.
        root: the factory's root metadata, from a place the box cannot write.
        provisioned: the box ran a release before; then missing floors mean tampering even with an empty folder.
    """

    def __init__(
        self,
        *,
        folder: Path,
        root: bytes,
        url: str,
        now: Callable[[], datetime],
        limits: Limits | None = None,
        fs: Fs = REAL_FS,
        monotonic: Monotonic = time.monotonic,
        context: ssl.SSLContext | None = None,
        provisioned: bool = False,
    ) -> None:
        self._folder, self._root, self._url, self._now, self._fs = folder, root, url.rstrip("/"), now, fs
        self._limits = limits or Limits()
        self._provisioned = provisioned
        for made in ("metadata", "floors", "blobs"):
            (folder / made).mkdir(parents=True, exist_ok=True)
        self._floor_store = FloorStore(folder / "floors", fs=fs)
        self._transport = Transport(self._limits, context=context)
        self.blobs = BlobStore(folder / "blobs", fs=fs)
        self._downloader = Downloader(self._transport, self.blobs, limits=self._limits, monotonic=monotonic)
        self._contents = Contents(self._url, self.blobs, self._downloader, self._limits)
        self.unforeseen = 0
        """Faults of python-tuf that nobody foresaw; each was logged with its traceback."""
        self.timestamp_age: timedelta | None = None
        """Age of the newest timestamp at the last good check: compare with the channel's `max_age_s`."""

    @property
    def bytes_received(self) -> int:
        """Bytes of targets and chunks received since this object was made."""
        return self._downloader.bytes_received

    def check(self, line: str, channel: str) -> ChannelManifest:
        """The release `line` should run now, verified down to the digests of its base and adapter.

        Raises:
            TransientError: the server cannot be reached or has no release for this line yet.
            BlockedError: CLOCK, this box's clock is wrong; or its disk is full.
            RefusedError: EXPIRED, WRONG_LINE, REVOKED or REQUIREMENTS.
            SecurityError: SIGNATURE, DIGEST, ROLLBACK or TAMPERED.
        """
        with self._alone():
            floors = self._floor_store.load(provisioned=self._has_history())
            self._provisioned = True  # a box may run for months: floors that vanish under it are no new box
            self._refuse_early_clock(floors)
            self._transport.server_time = None
            with self._verdicts(floors):
                updater = self._refreshed()
                manifest = self._chosen(updater, floors, line, channel)
                rules.refuse_unlisted(
                    manifest,
                    adapter=updater.get_targetinfo(rules.allowed_path(manifest.adapter.path)),
                    base=updater.get_targetinfo(rules.allowed_path(manifest.base.path)),
                )
                self._commit(floors, updater, manifest)
            self.timestamp_age = self._now() - (updater.timestamp_expires - POLICIES["timestamp"].lifetime)
            return manifest

    def fetch(self, channel: ChannelManifest) -> Release:
        """Bring everything `channel` (from `check`) needs that is not here yet. Bytes already here are hashed again.

        Raises:
            TransientError: interrupted; repeat it, what arrived is kept.
            BlockedError: DISK_FULL, with the bytes needed and free.
            RefusedError: WRONG_LINE, WRONG_BASE, BAD_ADAPTER or REQUIREMENTS.
            SecurityError: DIGEST, the server gives other bytes than were signed.
        """
        with self._alone():
            try:
                return self._contents.release(channel)
            except OSError as fault:
                raise TransientError(f"disk trouble while fetching release {channel.release}: {fault}") from fault

    def revoked(self, line: str) -> frozenset[str]:
        """Digests of bases and adapters that `line` may never run again, as last seen."""
        return frozenset(self._floor_store.load(provisioned=self._has_history()).revoked.get(line, []))

    def min_release(self, line: str) -> int:
        """The lowest release number `line` may still run, as last seen."""
        return self._floor_store.load(provisioned=self._has_history()).min_release.get(line, 0)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._folder / ".lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as taken:
                raise TransientError(f"another process updates in {self._folder}: only one may") from taken
            yield

    def _has_history(self) -> bool:
        return self._provisioned or (self._folder / "metadata" / "timestamp.json").exists()

    def _refuse_early_clock(self, floors: Floors) -> None:
        if floors.clock is not None and self._now() < floors.clock - self._limits.clock_tolerance:
            raise BlockedError(
                f"clock_behind: it is {self._now():%Y-%m-%d %H:%M} here but was {floors.clock:%Y-%m-%d %H:%M} before: "
                "set the clock (NTP); inspection goes on",
                reason=ReportReason.CLOCK,
            )

    def _refreshed(self) -> PowerSafeUpdater:
        updater = PowerSafeUpdater(
            self._folder / "metadata",
            f"{self._url}/metadata/",
            root=self._root,
            fetcher=MetadataFetcher(self._transport, self._limits),
            now=self._now(),
            fs=self._fs,
        )
        updater.refresh()
        return updater

    @contextmanager
    def _verdicts(self, floors: Floors) -> Iterator[None]:
        try:
            yield
        except Exception as fault:
            error = classified(fault)
            if error is None:
                self.unforeseen += 1
                log.exception("unforeseen fault while verifying metadata")
                error = TransientError(f"unforeseen {type(fault).__name__} while verifying metadata: {fault}")
            elif rules.clock_is_ahead(error, self._transport.server_time, floors, self._now(), self._limits):
                error = BlockedError(
                    f"clock_ahead: {fault}, but by the server's clock it is not: set the clock (NTP)",
                    reason=ReportReason.CLOCK,
                )
            if isinstance(error, RefusedError):
                log.warning("update refused: %s (%s)", error, error.reason)
            if error is fault:
                raise
            raise error from fault

    def _chosen(self, updater: PowerSafeUpdater, floors: Floors, line: str, channel: str) -> ChannelManifest:
        path = rules.allowed_path(channel_path(line, channel))
        target = updater.get_targetinfo(path)
        numbers.raise_roles(floors, updater.seen(channel_role(line)))
        if target is None and f"{line}/{channel}" in floors.releases:
            raise SecurityError(f"{path} was published before and is gone", reason=ReportReason.TAMPERED)
        if target is None:
            raise TransientError(f"no release for line {line} on channel {channel} yet")
        data = self._contents.small(path, rules.sha256_of(target), target.length)
        return rules.of_line(rules.decoded(ChannelManifest, data, ReportReason.TAMPERED), line, channel)

    def _commit(self, floors: Floors, updater: PowerSafeUpdater, manifest: ChannelManifest) -> None:
        role = channel_role(manifest.line)
        seen = updater.seen(role, adapter_role(manifest.line), BASE_ROLE)
        raised = numbers.raise_roles(floors, seen)
        raised = numbers.raise_release(raised, manifest, new_keys=numbers.rotated(floors, seen, role))
        latest = max(self._now(), min(manifest.created_at, updater.timestamp_expires))
        if floors.clock is None or latest - floors.clock >= CLOCK_STEP:
            raised = numbers.raise_clock(raised, latest)
        if raised != floors:
            self._floor_store.save(raised)
        # Only now: the metadata is genuine whatever it selects, so what it revokes is remembered all the same.
        rules.refuse_revoked(raised, manifest)
        self._refuse_early_clock(raised)
