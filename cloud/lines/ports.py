"""What lines, registry and gate need of the object store: content-addressed bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Blobs(Protocol):
    """Bytes by SHA-256. `cloud.objects.blobs.BlobCache` is the real one."""

    def add(self, data: bytes, /) -> str:
        """Store durably and return the digest; the same bytes twice are one blob."""
        ...

    def read(self, sha: str, /) -> bytes:
        """The verified bytes."""
        ...

    def path(self, sha: str, /) -> Path:
        """A local file that holds exactly these bytes and is never changed."""
        ...
