"""What the updater asks of verified releases; `ota.client.ReleaseClient` is it."""

from __future__ import annotations

from typing import Protocol

from edge_agent.updater.loader import Blobs
from models.contracts.release_manifest import ChannelManifest


class Releases(Protocol):
    """Verified releases; see `ota.client.ReleaseClient`."""

    @property
    def blobs(self) -> Blobs: ...

    def check(self, line: str, channel: str) -> ChannelManifest: ...

    def fetch(self, channel: ChannelManifest) -> object: ...

    def revoked(self, line: str) -> frozenset[str]: ...
