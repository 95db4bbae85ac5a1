"""What the fleet table says about a box, from heartbeats good, bad and absent."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.dashboard.fleet import box
from cloud.dashboard.i18n import Speech
from cloud.db.tables import Edge
from models.contracts.telemetry import CascadeHealth, CascadeSums

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


def cascade(**changed: Any) -> dict[str, Any]:
    """A heartbeat's part about the gate, as a box sends it."""
    sums = CascadeSums(n_pass=80, n_reject=8, n_escalated=12, n_late=2, n_audited=40)
    given = {
        "gate_line": "cells-gate",
        "release": 3,
        "sums": sums,
        "escape": {"rate": 0.005, "low": 0.001, "high": 0.021},
    }
    return CascadeHealth(**{**given, **changed}).model_dump(mode="json")


def test_a_gate_in_front_shows_where_parts_are_decided_and_what_it_misses() -> None:
    found = box(SAY, edge(beat={"cascade": cascade()}), {}, now=9_000_000)
    assert found.gate == (
        "gate cells-gate, release 3: 88.0% of parts end there, 2 late; "
        "missed by the gate alone: 0.5% (0.1% to 2.1%); 40 parts audited"
    )
    assert not found.abnormal
    assert box(SAY, edge(), {}, now=9_000_000).gate == ""


def test_a_gate_that_does_not_decide_is_abnormal_and_says_why() -> None:
    beat = {"cascade": cascade(trouble="no cuts", release=0, sums=CascadeSums(), escape=None)}
    found = box(Speech("zh"), edge(beat=beat), {}, now=9_000_000)
    assert found.abnormal
    assert found.troubles == ["前级 cells-gate：no cuts"]
    assert "–" in found.gate
