from __future__ import annotations

import pytest

from edge_agent.health import LatencyWindow, Meter, ModelState, Pulse, resident_bytes
from edge_agent.spool.sample import Account
from models.contracts.base import decode
from models.contracts.telemetry import Heartbeat
from tests.edge_agent.making import HandClock


def test_percentiles_are_of_the_newest_values() -> None:
    window = LatencyWindow(size=100)
    assert window.percentile(0.5) is None
    for value in range(1000):
        window.add(value)
    assert window.percentile(0.0) == 900
    assert window.percentile(0.5) == 950
    assert window.percentile(0.99) == 999


def test_an_unknown_counter_is_an_error() -> None:
    with pytest.raises(KeyError):
        Meter().count("nonsense")


def test_memory_is_that_of_this_process() -> None:
    assert 10 << 20 < resident_bytes() < 8 << 30


def test_a_heartbeat_carries_the_books_and_the_model() -> None:
    meter = Meter()
    meter.count("inspected", 3)
    meter.latency(5.0)
    pulse = Pulse(
        edge="edge-1",
        line="cells",
        version="0.1.0",
        clock=HandClock().clock(),
        meter=meter,
        feeds={},
        account=lambda: Account("a" * 16, 9, 2, 100, 1.5, [(8, 9)], True, "ok", {"thinned": 1}),
        model=lambda: ModelState(release=4, adapter="abc", previous=3, update_state="committed"),
        free_bytes=lambda: 1000,
        resent_bytes=lambda: 7,
    )
    beat = decode(Heartbeat, pulse.heartbeat().encode())
    assert (beat.max_seq, beat.pending.n, beat.pending_ranges, beat.lost) == (9, 2, [(8, 9)], {"thinned": 1})
    assert (beat.inspected, beat.latency_p50_ms, beat.release, beat.resent_bytes) == (3, 5.0, 4, 7)
