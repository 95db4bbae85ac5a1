"""``slots.json``: which release runs, which ran before, which is staged, which was rejected. Written atomically.

This file alone says what a box runs after a power cut; blobs are found by the digests in it. It holds no path and no
secret. A file that cannot be read is set aside: the box then has no model until it reaches the repository, where the
blobs it still has cost no download. The report counter is also bounded below by the clock, so it grows even then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field

from models.contracts.base import Count, Malformed, Positive, Sha256, Text, Timestamp, canonical, decode
from models.contracts.control import ReportReason, UpdateState
from models.contracts.release_manifest import ChannelManifest, Probe
from models.disk import REAL_FS, Fs, write_atomic

MAX_REJECTED = 100
_log = structlog.get_logger("updater")


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Slot(_Stored):
    """A release on this box. `base` and `adapter` are the digests of their manifests in the blob store."""

    release: Positive
    base: Sha256
    adapter: Sha256
    model_version: Text
    probe: Probe

    @classmethod
    def of(cls, channel: ChannelManifest) -> Slot:
        return cls(
            release=channel.release,
            base=channel.base.sha256,
            adapter=channel.adapter.sha256,
            model_version=channel.model_version,
            probe=channel.probe,
        )

    def same_content(self, other: Slot | None) -> bool:
        """Whether both load the same bytes."""
        return other is not None and (self.base, self.adapter) == (other.base, other.adapter)


class Rejected(_Stored):
    """An adapter release this box will not try again."""

    adapter: Sha256
    release: Positive
    reason: ReportReason
    detail: Text
    at: Timestamp


class Slots(_Stored):
    """`running` is True from start to regular stop, so True at a start means the last run crashed."""

    v: Literal[1] = 1
    state: UpdateState = UpdateState.IDLE
    current: Slot | None = None
    previous: Slot | None = None
    staged: Slot | None = None
    rejected: list[Rejected] = Field(default_factory=list, max_length=MAX_REJECTED)
    attempt: Count = 0
    counter: Count = 0
    running: bool = False

    @property
    def removed(self) -> int | None:
        """The release that was revoked and left no model behind."""
        last = self.rejected[-1] if self.current is None and self.rejected else None
        return last.release if last is not None and last.reason is ReportReason.REVOKED else None

    def rejection(self, adapter: str) -> Rejected | None:
        """Why that adapter release was rejected here, if it was."""
        return next((entry for entry in self.rejected if entry.adapter == adapter), None)

    def with_rejected(self, entry: Rejected) -> list[Rejected]:
        """The list with one more, the oldest forgotten beyond `MAX_REJECTED`."""
        others = [known for known in self.rejected if known.adapter != entry.adapter]
        return [*others, entry][-MAX_REJECTED:]


class SlotStore:
    """The file. `now` is a copy of what is on disk: it changes only when a write succeeded."""

    def __init__(self, path: Path, *, fs: Fs = REAL_FS) -> None:
        self._path, self._fs = path, fs
        self.now = self._load()

    def change(self, **fields: object) -> Slots:
        """Replace fields durably.

        Raises:
            OSError: the old content holds.
        """
        changed = self.now.model_copy(update=fields)
        data = canonical(changed.model_dump(mode="json", exclude_none=True))
        write_atomic(self._path, data, fs=self._fs)
        self.now = changed
        return changed

    def _load(self) -> Slots:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Slots()
        try:
            return decode(Slots, data)
        except Malformed as fault:
            aside = self._path.with_suffix(".damaged")
            self._path.replace(aside)
            _log.error(
                "slots.json is damaged: no model until the repository is reached", why=str(fault), kept=str(aside)
            )
            return Slots()
