"""The blob file: self-describing, checked to the last bit, and readable for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.spool.blobs import CorruptBlob, decode_blob, encode_blob
from models.contracts.base import sha256_hex
from models.contracts.sample import ImageInfo
from models.contracts.uplink import Priority
from tests.models.contracts.examples import META, SID

IMAGE = bytes(range(256))
ENVELOPE = META.model_copy(update={"image": ImageInfo(sha256=sha256_hex(IMAGE), size=len(IMAGE), type="image/png")})
DATA = encode_blob(ENVELOPE.encode(), IMAGE, sha256_hex(IMAGE), Priority.FLAGGED)
GOLDEN = Path(__file__).with_name("golden") / "v1.smp"


def test_version_1_is_read_for_ever() -> None:
    blob = decode_blob(GOLDEN.read_bytes())
    assert (blob.prio, blob.meta, blob.image) == (Priority.FLAGGED, ENVELOPE, IMAGE)
    assert GOLDEN.read_bytes() == DATA


@given(place=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_is_a_sample(place: int, bit: int) -> None:
    data = bytearray(DATA)
    data[place] ^= 1 << bit
    with pytest.raises(CorruptBlob):
        decode_blob(bytes(data))


@given(st.integers(0, len(DATA) - 1))
def test_no_torn_file_is_a_sample(length: int) -> None:
    for torn in (DATA[:length], DATA[:length] + bytes(len(DATA) - length)):
        if torn != DATA:
            with pytest.raises(CorruptBlob):
                decode_blob(torn)


@given(st.binary(max_size=200))
def test_noise_is_corrupt_and_never_another_error(noise: bytes) -> None:
    with pytest.raises(CorruptBlob):
        decode_blob(b"ELSP\x01" + noise)


def test_an_envelope_that_is_none_is_corrupt() -> None:
    with pytest.raises(CorruptBlob, match="envelope"):
        decode_blob(encode_blob(b"{}", IMAGE, sha256_hex(IMAGE), Priority.HARD))
    with pytest.raises(CorruptBlob, match="digest"):
        decode_blob(encode_blob(ENVELOPE.encode(), IMAGE, "0" * 64, Priority.HARD))
    assert SID in str(ENVELOPE.sid)
