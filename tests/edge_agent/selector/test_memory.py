from __future__ import annotations

import numpy as np

from edge_agent.selector.memory import RecentUploads


def unit(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


def test_a_close_direction_is_a_duplicate_and_a_far_one_is_not() -> None:
    recent = RecentUploads()
    recent.add("a", unit(0.0))
    recent.add("b", unit(1.5))
    assert recent.duplicate_of(unit(0.1)) == "a"
    assert recent.duplicate_of(unit(1.45)) == "b"
    assert recent.duplicate_of(unit(0.7)) is None


def test_the_oldest_is_forgotten() -> None:
    recent = RecentUploads(size=2)
    for i, sid in enumerate("abc"):
        recent.add(sid, unit(float(i)))
    assert recent.duplicate_of(unit(0.0)) is None
    assert recent.duplicate_of(unit(2.0)) == "c"
    assert len(recent) == 2


def test_another_width_starts_anew_and_empty_knows_nothing() -> None:
    recent = RecentUploads()
    assert recent.duplicate_of(unit(0)) is None
    recent.add("a", unit(0))
    assert recent.duplicate_of(np.array([1, 0, 0], dtype=np.float32)) is None
    recent.add("b", np.array([1, 0, 0], dtype=np.float32))
    assert len(recent) == 1
