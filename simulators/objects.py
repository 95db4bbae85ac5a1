"""An object store in memory with faults on demand, for the port `cloud.objects.ObjectStore`.

Knobs: `down` refuses every call; `fail_next` counts calls that fail before they act, `fail_after` calls that act and
then fail (the answer was lost); `truncate_next` keeps only half of what a put sends, and says so only when asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cloud.objects import DigestConflict, ObjectInfo, ObjectMissing, StoreUnavailable
from models.contracts.base import sha256_hex


@dataclass
class MemoryObjects:
    """The fake. `calls` lists (verb, key) in order."""

    down: bool = False
    fail_next: int = 0
    fail_after: int = 0
    truncate_next: int = 0
    content: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)

    def put_once(self, key: str, data: bytes, *, sha256: str, content_type: str) -> None:
        if sha256_hex(data) != sha256:
            raise ValueError(f"{key!r}: the bytes do not have the digest they are stored under")
        self._called("put", key)
        if key not in self.content:
            self.content[key] = (self._cut(data), content_type)
        self._answered()
        there = self.content[key][0]
        if there != data:
            raise DigestConflict(key, f"{len(there)} bytes instead of {len(data)}")

    def read(self, key: str) -> bytes:
        self._called("read", key)
        if key not in self.content:
            raise ObjectMissing(key)
        return self.content[key][0]

    def stat(self, key: str) -> ObjectInfo | None:
        self._called("stat", key)
        if key not in self.content:
            return None
        data, content_type = self.content[key]
        return ObjectInfo(key=key, size=len(data), sha256=sha256_hex(data), content_type=content_type)

    def delete(self, key: str) -> None:
        self._called("delete", key)
        self.content.pop(key, None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._called("list", prefix)
        for key in sorted(self.content):
            if key.startswith(prefix):
                data, content_type = self.content[key]
                yield ObjectInfo(key=key, size=len(data), sha256=sha256_hex(data), content_type=content_type)

    def _called(self, verb: str, key: str) -> None:
        self.calls.append((verb, key))
        if self.down:
            raise StoreUnavailable("the object store is down")
        if self.fail_next > 0:
            self.fail_next -= 1
            raise StoreUnavailable("the object store failed")

    def _answered(self) -> None:
        if self.fail_after > 0:
            self.fail_after -= 1
            raise StoreUnavailable("the answer was lost")

    def _cut(self, data: bytes) -> bytes:
        if self.truncate_next > 0:
            self.truncate_next -= 1
            return data[: len(data) // 2]
        return data
