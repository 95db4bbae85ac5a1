"""The object store port: immutable bytes under content-addressed keys.

Errors are cut by what the caller does next: `StoreUnavailable` is tried again later and nothing is acknowledged until
then, `ObjectMissing` is a loss to report, `DigestConflict` means the store holds other bytes under this name. The
implementation on the `minio` client is in `s3`, the verified local cache in `blobs`, the fake in `simulators.objects`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """Anything the object store could not do."""


class StoreUnavailable(StoreError):
    """Unreachable, overloaded or refusing the credentials: the same call may succeed later."""


class ObjectMissing(StoreError):
    """There is no object under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the object store has no {key!r}")
        self.key = key


class DigestConflict(StoreError):
    """The store holds other bytes under this key than the key promises."""

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(f"{key!r} in the object store is not what it should be: {detail}")
        self.key = key


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the store says about an object. `sha256` is absent when the writer did not record it."""

    key: str
    size: int
    sha256: str | None
    content_type: str


class ObjectStore(Protocol):
    """Create-only storage. Every method raises `StoreUnavailable` when the store cannot be asked."""

    def put_once(self, key: str, data: bytes, *, sha256: str, content_type: str) -> None:
        """Store `data` unless the same bytes are there; after it returns the store has them whole.

        Raises:
            DigestConflict: other bytes are there, or arrive there.
            ValueError: `data` does not have the digest `sha256`.
        """
        ...

    def read(self, key: str) -> bytes:
        """All bytes.

        Raises:
            ObjectMissing: no such key.
        """
        ...

    def stat(self, key: str) -> ObjectInfo | None:
        """What is there, or None."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is fine."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in key order."""
        ...


def sample_key(sha256: str) -> str:
    """Where a sample's image is."""
    return f"samples/{sha256[:2]}/{sha256}"


def blob_key(sha256: str) -> str:
    """Where a file of a model is."""
    return f"blobs/{sha256[:2]}/{sha256}"


def snapshot_key(sha256: str) -> str:
    """Where a frozen set of labels is."""
    return f"snapshots/{sha256}.json"
