"""What the fleet table says about a box, from heartbeats good, bad and absent."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.dashboard.fleet import box
from cloud.dashboard.i18n import Speech
from cloud.db.tables import Edge

SAY = Speech("en")


def edge(*, online: bool = True, state: str = "committed", beat: dict[str, Any] | None = None) -> Edge:
    return Edge(name="edge-1", line="cells", online=online, seen_at=5_000_000, release=3, update_state=state,
                heartbeat=beat or {})  # fmt: skip


@pytest.mark.parametrize(
    ("row", "losses", "abnormal"),
    [
        (edge(), {}, False),
        (edge(online=False), {}, True),
        (edge(state="refused"), {}, True),
        (edge(state="downloading"), {}, False),
        (edge(), {"thinned": 40}, False),
        (edge(), {"evicted": 1}, True),
        (edge(beat={"spool": "full"}), {}, True),
        (edge(beat={"clock_ok": False}), {}, True),
        (edge(beat={"dropped_frames": 2}), {}, True),
        (edge(beat={"dropped_frames": 0, "spool": "ok", "clock_ok": True}), {}, False),
        (edge(beat={"cameras": {"cam-1": {"state": "failed"}}}), {}, True),
        (edge(beat={"cameras": {"cam-1": {"state": "ok"}}}), {}, False),
    ],
)
def test_abnormal(row: Edge, losses: dict[str, int], abnormal: bool) -> None:
    assert box(SAY, row, losses, now=9_000_000).abnormal is abnormal


def test_a_box_that_never_spoke() -> None:
    found = box(SAY, Edge(name="e", line="l", online=False, release=0, update_state="idle", heartbeat={}), {}, now=9)
    assert (found.seen_s, found.memory, found.latency_p50, found.state, found.version) == (None, None, None, "–", "–")


def test_losses_name_their_reasons() -> None:
    found = box(SAY, edge(), {"evicted": 3, "thinned": 2}, now=9_000_000)
    assert found.lost == 3
    assert found.lost_words == "evicted for space: 3; thinned out, accounted for: 2"
    assert found.seen_s == 4.0
