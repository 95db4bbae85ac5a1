"""What every message and manifest has in common: strictness, size limits, canonical bytes, decoding.

`Message` is for what travels and is consumed: unknown fields are ignored, so a newer sender can add some.
`Manifest` is for what is signed and stored: unknown fields are kept and survive a round trip.
`decode` is the only door for foreign bytes: it caps the size first, refuses duplicate keys, NaN and deep
nesting, and turns every fault into one exception, `Malformed`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

MAX_JSON_BYTES = 1 << 20
MAX_JSON_DEPTH = 32

_FORBIDDEN = frozenset(
    code
    for first, last in (
        (0x00, 0x1F),  # C0 controls
        (0x7F, 0x9F),  # delete and C1 controls
        (0x200B, 0x200F),  # zero width and direction marks
        (0x2028, 0x202E),  # line and paragraph separators, embeddings
        (0x2066, 0x2069),  # isolates
        (0xD800, 0xDFFF),  # lone surrogates
        (0xFEFF, 0xFEFF),  # byte order mark
    )
    for code in range(first, last + 1)
)


class Malformed(ValueError):
    """Foreign bytes that are no valid document of the expected kind. The text names the first fault."""


def _printable(text: str) -> str:
    if any(ord(character) in _FORBIDDEN for character in text):
        raise ValueError("control, bidirectional and surrogate characters are not allowed")
    return text


Text = Annotated[str, StringConstraints(max_length=256), AfterValidator(_printable)]
"""Free text shown to people: at most 256 characters, none of them able to disturb a log or a page."""
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$")]
"""An edge, line or camera name. Safe in a topic, a path, a role name and a certificate's common name."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Lower-case hexadecimal SHA-256."""
Epoch = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
"""64 random bits minted when a spool is created; with `seq` it identifies a sample for ever."""
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Inclusion = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
"""A probability of being kept: never 0, since what could never be kept can never be weighted back."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**63 - 1)]
Timestamp = AwareDatetime


class Message(BaseModel):
    """One JSON document on the wire. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())

    def encode(self) -> bytes:
        """Canonical JSON bytes; fields that are None are left out."""
        return canonical(self.model_dump(mode="json", exclude_none=True))


class Manifest(BaseModel):
    """A signed or stored document. Unknown fields are kept, so an old program can pass on a newer one's."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, protected_namespaces=())

    def encode(self) -> bytes:
        """Canonical JSON bytes; fields that are None are left out."""
        return canonical(self.model_dump(mode="json", exclude_none=True))

    def digest(self) -> str:
        """SHA-256 of `encode()`."""
        return sha256_hex(self.encode())


def canonical(document: Any) -> bytes:
    """The one byte form of a JSON document: sorted keys, no spaces, UTF-8, no NaN.

    Follows RFC 8785 (JSON Canonicalization Scheme) but for number text, which is Python's shortest
    round-trip form; both ends are this code, and every digest is taken over these bytes.

    Raises:
        ValueError: for NaN or infinity.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """SHA-256 of `data` in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Malformed("a key occurs twice in one object")
    return document


def _depth(document: Any) -> int:
    deepest, level = 0, [document]
    while level:
        deepest += 1
        if deepest > MAX_JSON_DEPTH:
            return deepest
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return deepest


def parse_json(data: bytes, *, limit: int = MAX_JSON_BYTES) -> Any:
    """Foreign bytes to plain JSON values.

    Raises:
        Malformed: larger than `limit` bytes, not UTF-8, not JSON, nested deeper than `MAX_JSON_DEPTH`,
            a key twice in one object, or NaN / infinity.
    """
    if len(data) > limit:
        raise Malformed(f"{len(data)} bytes, {limit} allowed")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except Malformed:
        raise
    except (ValueError, RecursionError) as fault:
        raise Malformed(f"not JSON: {str(fault)[:200]}") from fault
    if _depth(document) > MAX_JSON_DEPTH:
        raise Malformed(f"nested deeper than {MAX_JSON_DEPTH}")
    return document


M = TypeVar("M", bound=BaseModel)


def decode(kind: type[M], data: bytes, *, limit: int = MAX_JSON_BYTES) -> M:
    """Foreign bytes to a validated `kind`.

    Raises:
        Malformed: see `parse_json`, or the document is not a valid `kind`; the text names the field.
    """
    return parse_as(kind, parse_json(data, limit=limit))


def parse_as(kind: type[M], document: Any) -> M:
    """Plain JSON values to a validated `kind`.

    Raises:
        Malformed: naming the first field that is wrong.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise Malformed(f"{kind.__name__}: {where}: {first['msg']}"[:300]) from fault
    except RecursionError as fault:
        raise Malformed(f"{kind.__name__}: nested too deep") from fault
