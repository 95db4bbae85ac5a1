"""Bringing a release's bytes here: manifests, adapter blobs, base files. Driven by digests alone.

Everything hangs on the digests in a verified channel manifest, so this works after a restart, and without the network
when nothing is missing. No byte is parsed before its digest was right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.contracts.control import ReportReason
from models.contracts.model_manifest import MAX_ADAPTER_BYTES, AdapterManifest, BaseManifest, Chunk
from models.contracts.release_manifest import ChannelManifest, TargetRef
from models.contracts.tuf_layout import base_chunk_url, base_manifest_path
from ota.client.assemble import assemble, missing_bytes
from ota.client.blobs import BlobStore
from ota.client.download import Downloader
from ota.client.limits import Limits
from ota.client.rules import allowed_path, decoded, refuse_foreign
from ota.errors import BlockedError, RefusedError
from ota.paths import blob_paths, hashed_path


@dataclass(frozen=True, slots=True)
class Release:
    """A release whose every byte is verified and in the blob store."""

    channel: ChannelManifest
    base: BaseManifest
    base_sha: str
    adapter: AdapterManifest
    adapter_sha: str

    def digests(self) -> set[str]:
        """Every blob the release is made of: what `BlobStore.keep` must not remove."""
        return {
            self.base_sha,
            self.adapter_sha,
            *(file.sha256 for file in self.base.files),
            *(blob.sha256 for blob in self.adapter.blobs()),
            self.channel.digest(),
        }


class Contents:
    """Fetches what a release needs into a blob store."""

    def __init__(self, url: str, store: BlobStore, downloader: Downloader, limits: Limits) -> None:
        self._url, self.blobs, self._downloader, self._limits = url, store, downloader, limits

    def release(self, channel: ChannelManifest) -> Release:
        """Everything `channel` names, verified and stored. For errors see `ReleaseClient.fetch`."""
        adapter = decoded(AdapterManifest, self._manifest(channel.adapter), ReportReason.BAD_ADAPTER)
        refuse_foreign(channel, adapter)
        base = decoded(BaseManifest, self._manifest(channel.base), ReportReason.WRONG_BASE)
        if base_manifest_path(base.family, base.version) != channel.base.path:
            raise RefusedError(f"{channel.base.path} holds another base's manifest", reason=ReportReason.WRONG_BASE)
        release = Release(channel, base, channel.base.sha256, adapter, channel.adapter.sha256)
        missing = {sha256 for sha256 in release.digests() - {channel.digest()} if not self.blobs.intact(sha256)}
        chunks = {chunk.sha256 for file in base.files if file.sha256 in missing for chunk in file.chunks}
        self.blobs.drop_parts_except(missing | chunks)
        self._preflight(release, missing)
        for path, blob in blob_paths(adapter).items():
            if blob.sha256 in missing and not self.blobs.has(blob.sha256):
                url = f"{self._url}/targets/{hashed_path(path, blob.sha256)}"
                self._downloader.fetch(url, sha256=blob.sha256, length=blob.length, cap=MAX_ADAPTER_BYTES)
        for file in base.files:
            if file.sha256 in missing and not self.blobs.has(file.sha256):
                assemble(file, self.blobs, lambda chunk: self._chunk(base.family, chunk))
        return release

    def _preflight(self, release: Release, missing: set[str]) -> None:
        sizes = sum(blob.length for blob in release.adapter.blobs() if blob.sha256 in missing)
        sizes += sum(missing_bytes(file, self.blobs) for file in release.base.files if file.sha256 in missing)
        if not sizes:
            return
        needed = int(sizes * (1 + self._limits.spare_share)) + self._limits.spare_bytes
        free = self.blobs.free_bytes()
        if free < needed:
            raise BlockedError(
                f"release {release.channel.release} needs {needed} bytes, {free} are free in {self.blobs.folder}",
                reason=ReportReason.DISK_FULL,
                needed=needed,
                free=free,
            )

    def _chunk(self, family: str, chunk: Chunk) -> Path:
        url = f"{self._url}/targets/{base_chunk_url(family, chunk.sha256)}"
        cap = self._limits.chunk_bytes
        return self._downloader.complete_part(url, sha256=chunk.sha256, length=chunk.length, cap=cap)

    def _manifest(self, ref: TargetRef) -> bytes:
        return self.small(allowed_path(ref.path), ref.sha256, ref.length)

    def small(self, path: str, sha256: str, length: int) -> bytes:
        """A manifest's verified bytes, from the store or the server."""
        if not self.blobs.intact(sha256):
            url = f"{self._url}/targets/{hashed_path(path, sha256)}"
            self._downloader.fetch(url, sha256=sha256, length=length, cap=self._limits.manifest_bytes)
        return self.blobs.read(sha256)
