"""The chunk codec: what one end writes the other reads, and nothing else passes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts.base import Malformed
from models.contracts.chunk import (
    HEADER_BYTES,
    MAX_CHUNK_BYTES,
    ChecksumMismatch,
    Chunk,
    UnknownVersion,
    chunk_count,
    crc32c,
    decode_chunk,
    encode_chunk,
)
from models.contracts.ids import sid_text, uuid7
from models.contracts.uplink import bitmap_encode, bitmap_missing
from tests.models.contracts.examples import SID

sids = st.builds(
    lambda ms, noise: str(uuid7(ms, noise)), st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)
)


def test_crc32c_is_castagnolis() -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(16)), bytes(range(16, 32))) == 0x46DD794E


@settings(deadline=None)
@given(sid=sids, image=st.binary(min_size=1, max_size=3000), size=st.integers(1, 1500))
def test_an_image_survives_being_cut_and_joined_in_any_order(sid: str, image: bytes, size: int) -> None:
    count = chunk_count(len(image), size)
    messages = [
        encode_chunk(Chunk(sid=sid, index=i, count=count, size=size, data=image[i * size : (i + 1) * size]))
        for i in range(count)
    ]
    joined = bytearray(len(image))
    for message in reversed(messages):
        chunk = decode_chunk(message)
        assert (chunk.sid, chunk.count) == (sid, count)
        joined[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
    assert joined == image


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=200), place=st.integers(0), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(data: bytes, place: int, bit: int) -> None:
    message = bytearray(encode_chunk(Chunk(sid=SID, index=0, count=1, size=len(data), data=data)))
    message[place % len(message)] ^= 1 << bit
    with pytest.raises(Malformed):
        decode_chunk(bytes(message))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_malformed_and_never_another_error(noise: bytes) -> None:
    with pytest.raises(Malformed):
        decode_chunk(b"EL\x01\x00" + noise)


def forged(*, magic: bytes = b"EL", version: int = 1, flags: int = 0, index: int = 0, count: int = 1, size: int = 4,
           data: bytes = b"data") -> bytes:  # fmt: skip
    head = struct.pack(">2sBB16sHHI", magic, version, flags, bytes.fromhex(SID.replace("-", "")), index, count, size)
    return head + struct.pack(">I", crc32c(head, data)) + data


def test_the_forger_can_write_a_good_one() -> None:
    assert decode_chunk(forged()).data == b"data"


@pytest.mark.parametrize(
    "header",
    [
        {"magic": b"LE"},
        {"flags": 1},
        {"index": 1},
        {"index": 7, "count": 3},
        {"count": 0},
        {"size": 0},
        {"size": 3},
        {"size": 5, "count": 2},
        {"size": MAX_CHUNK_BYTES + 1},
        {"data": b""},
        {"data": bytes(MAX_CHUNK_BYTES + 1), "size": MAX_CHUNK_BYTES + 1},
    ],
)
def test_a_header_that_lies_is_refused_though_its_checksum_is_right(header: dict) -> None:
    with pytest.raises(Malformed):
        decode_chunk(forged(**header))


def test_another_version_is_told_apart_from_damage() -> None:
    with pytest.raises(UnknownVersion):
        decode_chunk(forged(version=2))
    with pytest.raises(ChecksumMismatch):
        decode_chunk(forged()[:-1] + b"X")


def test_the_largest_chunk_fits_a_128_kb_broker() -> None:
    message = forged(data=bytes(MAX_CHUNK_BYTES), size=MAX_CHUNK_BYTES)
    assert len(message) == HEADER_BYTES + MAX_CHUNK_BYTES <= 128_000
    assert len(decode_chunk(message).data) == MAX_CHUNK_BYTES


@given(held=st.sets(st.integers(0, 299)), count=st.integers(0, 300))
def test_the_bitmap_says_exactly_what_is_missing(held: set[int], count: int) -> None:
    held = {index for index in held if index < count}
    assert bitmap_missing(bitmap_encode(held, count), count) == [i for i in range(count) if i not in held]


def test_a_bitmap_that_is_short_absent_or_no_base64() -> None:
    assert bitmap_missing(None, 3) == [0, 1, 2]
    assert bitmap_missing(bitmap_encode({0}, 8), 10) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match=r"base64|padding|Only"):
        bitmap_missing("***", 3)


@given(st.integers(-5, 2**60), st.binary(min_size=10, max_size=10))
def test_uuid7_has_its_version_and_sorts_by_time(ms: int, noise: bytes) -> None:
    value = uuid7(ms, noise)
    assert (value.version, value.variant) == (7, "specified in RFC 4122")
    assert value.int >> 80 == max(ms, 0) & (2**48 - 1)
    assert sid_text(value.bytes) == str(value)


def test_uuid7_wants_its_entropy() -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        uuid7(0, b"short")
