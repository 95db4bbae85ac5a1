"""Sample ids. A `sid` is a UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then randomness.

The clock and the randomness are arguments, so a simulated run mints the same ids every time.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, StringConstraints


def _version_7(text: str) -> str:
    if UUID(text).version != 7:
        raise ValueError("not a version 7 UUID")
    return text


Sid = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"),
    AfterValidator(_version_7),
]


def uuid7(unix_ms: int, entropy: bytes) -> UUID:
    """A version 7 UUID.

    Args:
        unix_ms: milliseconds since 1970; only its low 48 bits are used, negative values count as 0.
        entropy: 10 random bytes (74 bits of them are used).
    """
    if len(entropy) != 10:
        raise ValueError("uuid7 needs 10 bytes of entropy")
    random = int.from_bytes(entropy, "big")
    value = (max(unix_ms, 0) & (2**48 - 1)) << 80
    value |= 0x7 << 76 | (random >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | random & (2**62 - 1)
    return UUID(int=value)


def sid_bytes(sid: str) -> bytes:
    """The 16 bytes of a sid, as carried in the chunk header."""
    return UUID(sid).bytes


def sid_text(raw: bytes) -> str:
    """The text form of 16 bytes from a chunk header."""
    return str(UUID(bytes=raw))
