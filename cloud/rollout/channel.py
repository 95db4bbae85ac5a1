"""From the database to the signed channel: what the newest release row says is what the repository must serve.

The row is written first and is the truth; signing follows and is repeated until the repository agrees, so a crash in
between is finished by the next tick. The announcement is only a hint: it is sent after signing, and once more when
the process starts, since a broker may have forgotten what it retained.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

from cloud import outbox
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Release
from cloud.rollout import repository
from models.contracts import topics
from models.contracts.base import parse_as
from models.contracts.control import Announce
from models.contracts.release_manifest import ChannelManifest, TargetRef


class Publisher(Protocol):
    """What the rollout needs of `ota.repository.ReleaseRepository`."""

    def publish(self, channel: ChannelManifest, online: Any, /) -> int: ...

    def renew_timestamp(self, online: Any, /) -> int: ...

    def adapter_ref(self, line: str, release: int, /) -> TargetRef: ...

    def base_ref(self, family: str, version: int, /) -> TargetRef: ...

    def current_channel(self, line: str, channel: str, /) -> ChannelManifest | None: ...


def manifest_of(row: Release) -> ChannelManifest:
    """The channel manifest the row wants signed."""
    return parse_as(ChannelManifest, row.manifest)


class Channel:
    """Signs and announces. Thread-safe: two callers never sign over each other with an older manifest."""

    def __init__(self, *, begin: Begin, reads: Begin, now: NowUs, publisher: Publisher, signers: Any) -> None:
        self._begin, self._reads, self._now = begin, reads, now
        self.publisher, self._signers = publisher, signers
        self._signing = threading.Lock()
        self._announced: dict[str, bytes] = {}

    def sync(self, line: str) -> bool:
        """Make the repository serve the line's newest release; True when something was signed or announced."""
        with self._signing:
            with self._reads() as session:
                newest = repository.newest(session, line)
            if newest is None:
                return False
            wanted = manifest_of(newest)
            current = self.publisher.current_channel(line, wanted.channel)
            same = current is not None and current.encode() == wanted.encode()
            if same and line in self._announced:
                return False
            version = self.publisher.publish(wanted, self._signers)
            return self._announce(wanted, version)

    def renew(self) -> int:
        """Sign a fresh timestamp; returns its version."""
        with self._signing:
            return self.publisher.renew_timestamp(self._signers)

    def _announce(self, wanted: ChannelManifest, version: int) -> bool:
        hint = Announce(timestamp_version=version, release=wanted.release, channel=wanted.channel).encode()
        if self._announced.get(wanted.line) == hint:
            return False
        with self._begin() as session:
            outbox.send(session, topic=topics.announce(wanted.line), payload=hint, at=self._now(), retain=True)
        self._announced[wanted.line] = hint
        return True
