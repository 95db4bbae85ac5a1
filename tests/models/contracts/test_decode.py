"""Foreign bytes: one door, one exception, no crash, no surprise."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts.base import MAX_JSON_BYTES, MAX_JSON_DEPTH, Malformed, canonical, decode, parse_json
from models.contracts.control import Command
from models.contracts.telemetry import Flag, Presence
from models.contracts.uplink import Ack, Loss, Offer
from tests.models.contracts.examples import EXAMPLES


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b"NaN",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        nested(MAX_JSON_DEPTH + 1),
        nested(10_000),
        nested(400_000),
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a":1}x',
        b"[" + b"9" * 5000 + b"]",
    ],
)
def test_what_is_not_clean_json(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_json(data)


def test_the_depth_limit_is_exact() -> None:
    assert parse_json(nested(MAX_JSON_DEPTH - 1)) is not None
    with pytest.raises(Malformed, match="nested"):
        parse_json(nested(MAX_JSON_DEPTH + 1))


def test_size_is_capped_before_anything_is_parsed() -> None:
    with pytest.raises(Malformed, match="allowed"):
        parse_json(b" " * (MAX_JSON_BYTES + 1))
    with pytest.raises(Malformed, match="11 bytes, 10 allowed"):
        parse_json(b'"123456789"', limit=10)


BAD_TEXT = ["\x00", "\x1b[31m", "\x7f", "\x85", "\u200b", "\u202e", "\u2066", "\ufeff", "\u2028", "a" * 257]


@pytest.mark.parametrize("text", BAD_TEXT)
def test_text_that_could_disturb_a_log_or_a_page(text: str) -> None:
    document = json.loads(EXAMPLES["flag"].encode()) | {"reason": text}
    with pytest.raises(Malformed, match="Flag: reason"):
        decode(Flag, json.dumps(document).encode())


def test_a_lone_surrogate() -> None:
    document = EXAMPLES["flag"].encode().replace(b"crack missed", b"\\ud800")
    with pytest.raises(Malformed):
        decode(Flag, document)


def test_honest_text_of_any_language_passes() -> None:
    document = json.loads(EXAMPLES["flag"].encode()) | {"reason": "裂纹 · Riß · трещина"}
    assert decode(Flag, json.dumps(document).encode()).reason == "裂纹 · Riß · трещина"


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a/b", "a+", "#", "..", "a" * 65, "ä", "a\n", "edge-1\x00"]
)
def test_identifiers_are_safe_in_a_topic_and_a_path(name: str) -> None:
    with pytest.raises(Malformed, match="Presence: edge"):
        decode(Presence, json.dumps({"edge": name, "online": True}).encode())


def changed(name: str, **fields: object) -> bytes:
    return json.dumps(json.loads(EXAMPLES[name].encode()) | fields).encode()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Offer, changed("offer", items=[])),
        (Offer, changed("offer", items=[{}] * 17)),
        (Offer, changed("offer", v=2)),
        (Offer, changed("offer", epoch="xyz")),
        (Offer, b"[]"),
        (Offer, b"null"),
        (Loss, changed("loss", ranges=[{"first": 0, "last": 1, "reason": "thinned"}])),
        (Loss, changed("loss", ranges=[{"first": 1, "last": 10**30, "reason": "thinned"}])),
        (Loss, changed("loss", ranges=[{"first": 1, "last": 1, "reason": "eaten"}])),
        (Loss, changed("loss", declared_at="2026-03-02T08:00:00")),
        (Loss, changed("loss", id="019cad8f-ac00-4abc-8def-0123456789ab")),
        (Ack, changed("ack", credit_bytes=-1)),
        (Ack, changed("ack", items=[{"sid": "x", "result": "stored"}])),
        (Command, changed("command_check_update", order={"kind": "format_disk"})),
        (Command, changed("command_selection_budget", order={"kind": "selection_budget", "line": "cells"})),
    ],
)
def test_documents_that_are_no_message(kind: type, data: bytes) -> None:
    with pytest.raises(Malformed, match=kind.__name__):
        decode(kind, data)


def test_the_fault_is_named_and_short() -> None:
    with pytest.raises(Malformed) as caught:
        decode(Offer, changed("offer", epoch="z" * 5000))
    assert len(str(caught.value)) <= 300
    assert "epoch" in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(EXAMPLES)), field=st.integers(0), value=json_values)
def test_any_field_replaced_by_anything_is_read_or_malformed(name: str, field: int, value: object) -> None:
    example = EXAMPLES[name]
    document = json.loads(example.encode())
    document[sorted(document)[field % len(document)]] = value
    try:
        decode(type(example), json.dumps(document).encode())
    except Malformed as fault:
        assert len(str(fault)) <= 300  # noqa: PT017 - both outcomes are right, the text must be short


@settings(deadline=None)
@given(json_values)
def test_canonical_bytes_are_a_fixed_point(value: object) -> None:
    if not json.dumps(value).isascii() or "\\ud" in json.dumps(value):
        return
    data = canonical(value)
    assert canonical(json.loads(data)) == data


def test_canonical_refuses_what_json_has_no_word_for() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})
