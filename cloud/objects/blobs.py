"""A local, verified cache in front of ``blobs/`` in the object store: the files of models, named by digest.

What `path` and `read` give has been hashed on arrival; `read` hashes again, since a disk may have changed it. The store
is the truth: a broken cached file is fetched again.
"""

from __future__ import annotations

from pathlib import Path

from cloud.objects import DigestConflict, ObjectStore, blob_key
from models.contracts.base import sha256_hex
from models.disk import write_atomic


class BlobCache:
    """Blobs by SHA-256."""

    def __init__(self, folder: Path, objects: ObjectStore) -> None:
        self._folder, self._objects = folder, objects

    def path(self, sha256: str) -> Path:
        """A local file with exactly these bytes.

        Raises:
            ObjectMissing: the store has no such blob.
            DigestConflict: the store has other bytes under that name.
            StoreUnavailable: try again later.
        """
        path = self._place(sha256)
        if not path.exists():
            self._fetch(sha256)
        return path

    def read(self, sha256: str) -> bytes:
        """The bytes, hashed again. Raises as `path` does."""
        path = self._place(sha256)
        if path.exists():
            data = path.read_bytes()
            if sha256_hex(data) == sha256:
                return data
        return self._fetch(sha256)

    def add(self, data: bytes) -> str:
        """Store `data` in the object store, keep a local copy and return its digest."""
        digest = sha256_hex(data)
        self._objects.put_once(blob_key(digest), data, sha256=digest, content_type="application/octet-stream")
        self._keep(digest, data)
        return digest

    def _fetch(self, sha256: str) -> bytes:
        data = self._objects.read(blob_key(sha256))
        if sha256_hex(data) != sha256:
            raise DigestConflict(blob_key(sha256), "its bytes have another digest")
        self._keep(sha256, data)
        return data

    def _keep(self, sha256: str, data: bytes) -> None:
        path = self._place(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)

    def _place(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256
