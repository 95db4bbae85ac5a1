"""Resumable transfer of one file whose digest and length are known from verified metadata.

Bytes collect in ``blobs/.part/<sha256>`` and are hashed as they come; a later attempt hashes what is there and asks
for the rest by Range, bound to the strong ETag. The first byte too many ends it, and only the exact digest enters the
store. Space is not reserved ahead: a full disk ends the transfer as BlockedError and what arrived is kept.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from models.contracts.control import ReportReason
from ota.client.blobs import BlobStore
from ota.client.limits import Limits, Monotonic, RateGuard
from ota.client.transport import Reply, Transport
from ota.errors import BlockedError, RefusedError, SecurityError, TransientError

HASH_READ = 1 << 20
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,128}"')
ATTEMPTS = 2
"""A stream that ends early is resumed once at once; after that the caller's backoff decides."""


class Downloader:
    """Fetches digests into a blob store."""

    def __init__(self, transport: Transport, store: BlobStore, *, limits: Limits, monotonic: Monotonic) -> None:
        self._transport = transport
        self._store = store
        self._limits = limits
        self._monotonic = monotonic
        self.bytes_received = 0

    def fetch(self, url: str, *, sha256: str, length: int, cap: int) -> None:
        """Bring a blob into the store.

        Raises:
            TransientError: network or server trouble; what arrived is kept for the next attempt.
            BlockedError: the disk is full.
            RefusedError: the signed length is above `cap`; nothing was requested.
            SecurityError: DIGEST, the server gave other bytes, too many or for ever too few; nothing is kept.
        """
        self.complete_part(url, sha256=sha256, length=length, cap=cap)
        self._store.adopt(sha256)

    def complete_part(self, url: str, *, sha256: str, length: int, cap: int) -> Path:
        """The same, but leave the verified and synced file among the parts and return its path."""
        if length > cap:
            raise RefusedError(f"{url}: {length} bytes signed, {cap} allowed", reason=ReportReason.REQUIREMENTS)
        part = self._store.part(sha256)
        try:
            with _open(part) as file:
                self._fill(file, url, sha256, length)
        except SecurityError:
            self._store.drop_part(sha256)
            raise
        except OSError as fault:
            raise _disk_trouble(fault, part, length, self._store.free_bytes()) from fault
        return part

    def _fill(self, file: BinaryIO, url: str, sha256: str, length: int) -> None:
        transfer = _Transfer(file, length)
        for _ in range(ATTEMPTS):
            if transfer.done < length:
                self._attempt(transfer, url, self._store.part(sha256).with_suffix(".etag"))
        if transfer.done < length:
            raise TransientError(f"{url}: {transfer.done} of {length} bytes arrived: will resume later")
        if transfer.digest() != sha256:
            raise _lie(f"{url}: the bytes do not have the signed digest {sha256[:12]}")
        file.flush()
        os.fsync(file.fileno())

    def _attempt(self, transfer: _Transfer, url: str, etag: Path) -> None:
        headers = _range_headers(transfer.done, etag)
        if not headers:
            transfer.restart()
        guard = RateGuard(self._limits, self._monotonic)
        with self._transport.get(url, total_s=self._limits.transfer_total_s, headers=headers) as reply:
            _accept(reply, transfer, url)
            if reply.etag is not None and _STRONG_ETAG.fullmatch(reply.etag):
                etag.write_text(reply.etag)
            for piece in reply.pieces():
                self.bytes_received += len(piece)
                transfer.write(piece, url)
                guard.received(len(piece))


class _Transfer:
    """The open part file, how much of it is there, and the hash of exactly that."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._length = length
        self._hash = hashlib.sha256()
        self.done = 0
        while piece := file.read(HASH_READ):
            self._hash.update(piece)
            self.done += len(piece)
        if self.done > length:
            self.restart()

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash, self.done = hashlib.sha256(), 0

    def write(self, piece: bytes, url: str) -> None:
        if self.done + len(piece) > self._length:
            raise _lie(f"{url}: more than the signed {self._length} bytes came")
        self._file.write(piece)
        self._hash.update(piece)
        self.done += len(piece)

    def digest(self) -> str:
        return self._hash.hexdigest()

    @property
    def length(self) -> int:
        return self._length


def _range_headers(done: int, etag: Path) -> Mapping[str, str]:
    """Headers that continue at `done`; empty when nothing safe can be continued."""
    known = etag.read_text(errors="replace") if done and etag.exists() else ""
    if not _STRONG_ETAG.fullmatch(known):
        return {}
    return {"Range": f"bytes={done}-", "If-Range": known}


def _accept(reply: Reply, transfer: _Transfer, url: str) -> None:
    if reply.status == 206:
        if reply.content_range != f"bytes {transfer.done}-{transfer.length - 1}/{transfer.length}":
            raise _lie(f"{url}: the server's file is not the signed {transfer.length} bytes")
    elif reply.status == 200:
        if reply.length is not None and reply.length != transfer.length:
            raise _lie(f"{url}: the server has {reply.length} bytes, {transfer.length} are signed")
        transfer.restart()
    elif reply.status == 416:
        raise _lie(f"{url}: the server's file is shorter than the signed {transfer.length} bytes")
    else:
        raise TransientError(f"{url}: HTTP {reply.status}")


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b")


def _lie(message: str) -> SecurityError:
    return SecurityError(message, reason=ReportReason.DIGEST)


def _disk_trouble(fault: OSError, part: Path, length: int, free: int) -> Exception:
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return BlockedError(f"disk full while writing {part}", reason=ReportReason.DISK_FULL, needed=length, free=free)
    return TransientError(f"cannot write {part}: {fault}")
