from __future__ import annotations

import numpy as np

from edge_agent.selector.memory import LEAST_SEEN, RecentUploads


def at(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


def centred(size: int = 256) -> RecentUploads:
    """Parts seen all around the circle: the centre is the origin."""
    recent = RecentUploads(size=size)
    for i in range(LEAST_SEEN):
        recent.observe(at(2 * np.pi * i / LEAST_SEEN))
    return recent


def test_a_close_direction_is_a_duplicate_and_a_far_one_is_not() -> None:
    recent = centred()
    recent.add("a", at(0.0))
    recent.add("b", at(1.5))
    assert recent.duplicate_of(at(0.1)) == "a"
    assert recent.duplicate_of(at(1.45)) == "b"
    assert recent.duplicate_of(at(0.7)) is None


def test_what_all_parts_of_a_new_product_share_makes_no_duplicates() -> None:
    rng = np.random.default_rng(0)
    shared = np.zeros(32, dtype=np.float32)
    shared[0] = 50.0
    parts = shared + rng.normal(size=(200, 32)).astype(np.float32)
    parts /= np.linalg.norm(parts, axis=1, keepdims=True)
    assert (parts[0] @ parts[1:].T).min() > 0.98  # as they are, every one is everyone's twin
    recent = RecentUploads()
    for i, part in enumerate(parts):
        recent.observe(part)
        assert recent.duplicate_of(part) is None, i
        recent.add(str(i), part)
    assert recent.duplicate_of(parts[-1]) == "199"


def test_without_a_centre_nothing_is_a_duplicate() -> None:
    recent = RecentUploads()
    recent.add("a", at(0.0))
    for _ in range(LEAST_SEEN - 1):
        recent.observe(at(1.0))
    assert recent.duplicate_of(at(0.0)) is None


def test_the_oldest_is_forgotten() -> None:
    recent = centred(size=LEAST_SEEN)
    for i in range(LEAST_SEEN + 1):
        recent.add(str(i), at(0.3 * i))
    assert len(recent) == LEAST_SEEN
    assert recent.duplicate_of(at(0.0)) is None
    assert recent.duplicate_of(at(0.3 * LEAST_SEEN)) == str(LEAST_SEEN)


def test_another_width_starts_anew_and_empty_knows_nothing() -> None:
    recent = centred()
    assert recent.duplicate_of(at(0)) is None
    recent.add("a", at(0))
    assert recent.duplicate_of(np.array([1, 0, 0], dtype=np.float32)) is None
    recent.add("b", np.array([1, 0, 0], dtype=np.float32))
    assert len(recent) == 1
