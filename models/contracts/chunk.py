"""One chunk of an image on the wire: a 32-byte big-endian header, then the bytes.

    0  magic "EL" | 2 version 1 | 3 flags 0 | 4 sid (16) | 20 index u16 | 22 count u16
    24 chunk size u32 | 28 crc32c u32 over bytes 0-27 and the chunk

Everything a receiver needs to place the bytes is in the payload, so MQTT 3.1.1 suffices. CRC32C is
Castagnoli's polynomial (RFC 3720, appendix B.4).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import google_crc32c

from models.contracts.base import Malformed
from models.contracts.ids import sid_bytes, sid_text

MAGIC = b"EL"
VERSION = 1
HEADER_BYTES = 32
MAX_CHUNK_BYTES = 122_880
MIN_CHUNK_BYTES = 16_384
MAX_CHUNKS = 65_535

_HEAD = struct.Struct(">2sBB16sHHI")
_CRC = struct.Struct(">I")


class UnknownVersion(Malformed):
    """A header version this program does not speak: a dead letter, counted, not a corrupt one."""


class ChecksumMismatch(Malformed):
    """The bytes are not those the sender wrote."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`index` counts from 0; `size` is the bytes of every chunk but the last."""

    sid: str
    index: int
    count: int
    size: int
    data: bytes

    @property
    def offset(self) -> int:
        """Where `data` belongs in the image, bytes."""
        return self.index * self.size


def crc32c(*parts: bytes | memoryview) -> int:
    """CRC32C over the concatenation of `parts`."""
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, bytes(part))
    return int(value)


def chunk_count(size: int, chunk_size: int) -> int:
    """Chunks needed for `size` bytes: ceil(size / chunk_size); an image has at least one byte."""
    return -(-size // chunk_size)


def encode_chunk(chunk: Chunk) -> bytes:
    """Header and bytes, as published on ``up/{edge}/data``."""
    head = _HEAD.pack(MAGIC, VERSION, 0, sid_bytes(chunk.sid), chunk.index, chunk.count, chunk.size)
    return head + _CRC.pack(crc32c(head, chunk.data)) + chunk.data


def decode_chunk(payload: bytes) -> Chunk:
    """The inverse of `encode_chunk`, trusting nothing.

    Length, magic, version and checksum are checked first, then that index, count and size agree with
    each other. Agreement with the offer is the receiver's to check.

    Raises:
        UnknownVersion: magic is right, the version is not 1.
        ChecksumMismatch: the checksum is wrong.
        Malformed: anything else.
    """
    if not HEADER_BYTES < len(payload) <= HEADER_BYTES + MAX_CHUNK_BYTES:
        raise Malformed(f"a chunk message of {len(payload)} bytes")
    magic, version, flags, sid, index, count, size = _HEAD.unpack_from(payload)
    if magic != MAGIC:
        raise Malformed("not a chunk: wrong magic")
    if version != VERSION:
        raise UnknownVersion(f"chunk header version {version}; this program speaks {VERSION}")
    data = payload[HEADER_BYTES:]
    if _CRC.unpack_from(payload, 28)[0] != crc32c(payload[:28], data):
        raise ChecksumMismatch("chunk checksum mismatch")
    if flags:
        raise Malformed(f"chunk flags {flags:#x} are not defined in version 1")
    if not 0 < size <= MAX_CHUNK_BYTES or index >= count:
        raise Malformed(f"chunk {index} of {count}, size {size}")
    if len(data) != size and not (index == count - 1 and len(data) < size):
        raise Malformed(f"chunk {index} of {count} carries {len(data)} bytes, size {size}")
    return Chunk(sid=sid_text(sid), index=index, count=count, size=size, data=data)
