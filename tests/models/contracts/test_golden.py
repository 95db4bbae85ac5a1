"""Released formats are for ever: golden files stay readable, and what is written today is byte for byte the same.

A deliberate addition changes the bytes of today's golden file: keep the old file beside it under a new name
(``offer.2.json`` for the newer form) and let both stay.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

import models.contracts
from models.contracts.base import Manifest, Message, canonical, decode, sha256_hex
from models.contracts.chunk import decode_chunk
from models.contracts.control import Announce
from models.contracts.topics import UP_LIMIT
from tests.models.contracts.examples import CHUNK, CHUNK_BYTES, EXAMPLES, META, OFFER

GOLDEN = Path(__file__).with_name("golden")
JSON_FILES = sorted(path.name for path in GOLDEN.glob("*.json"))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_todays_bytes_are_the_golden_bytes(name: str) -> None:
    example = EXAMPLES[name]
    assert isinstance(example, (Message, Manifest))
    assert example.encode() == (GOLDEN / f"{name}.json").read_bytes().rstrip(b"\n")


@pytest.mark.parametrize("file", JSON_FILES)
def test_every_golden_file_is_read(file: str) -> None:
    name = file.partition(".")[0]
    kind: type[BaseModel] = type(EXAMPLES[name])
    decoded = decode(kind, (GOLDEN / file).read_bytes())
    if file == f"{name}.json":
        assert decoded == EXAMPLES[name]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_old_reader_takes_what_a_newer_writer_adds(name: str) -> None:
    example = EXAMPLES[name]
    document = (GOLDEN / f"{name}.json").read_bytes().rstrip(b"\n")
    newer = document[:-1] + b',"zz_added_later":{"a":[1]}}'
    decoded = decode(type(example), newer)
    if isinstance(example, Manifest):
        assert decoded.encode() == newer, "what is signed keeps fields it does not know"
    else:
        assert decoded == example


def test_the_golden_chunk() -> None:
    assert (GOLDEN / "chunk.bin").read_bytes() == CHUNK_BYTES
    assert decode_chunk(CHUNK_BYTES) == CHUNK
    assert CHUNK_BYTES[:4].hex() == "454c0100"
    assert CHUNK_BYTES[20:28].hex() == "0002000300004000"


def test_every_payload_has_a_golden_file() -> None:
    top_level = {type(example).__name__ for example in EXAMPLES.values()}
    wanted = {
        "Offer", "Ack", "Loss", "IngestState", "Heartbeat", "Presence", "Aggregate", "Flag", "Announce", "Command",
        "SignedReport", "DeviceReport", "DriftAlarm", "SampleMeta", "BaseManifest",
        "AdapterManifest", "ChannelManifest",
    }  # fmt: skip
    assert wanted <= top_level
    assert models.contracts.__doc__


def test_the_meta_digest_in_an_offer_is_that_of_the_envelope() -> None:
    [item] = OFFER.items
    assert item.meta_sha == sha256_hex(META.encode()) == sha256_hex(canonical(item.meta))
    assert len(OFFER.encode()) < UP_LIMIT["offer"]
    announce = EXAMPLES["announce"]
    assert isinstance(announce, Announce)
    assert len(announce.encode()) < 200
