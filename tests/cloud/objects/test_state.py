"""The store's state: right, asked seldom, and never waited for beyond the limit."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from cloud.objects import ObjectInfo
from cloud.objects.state import StoreState
from simulators.objects import MemoryObjects


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class SilentObjects(MemoryObjects):
    """Answers when it is let go."""

    let_go: threading.Event = field(default_factory=threading.Event)

    def stat(self, key: str) -> ObjectInfo | None:
        self.let_go.wait(20)
        return super().stat(key)


def test_it_says_whether_the_store_answers() -> None:
    assert StoreState(MemoryObjects())() == "ok"
    assert StoreState(MemoryObjects(down=True))() == "away"


def test_the_store_is_asked_again_only_when_the_answer_is_old() -> None:
    objects, clock = MemoryObjects(), Clock()
    state = StoreState(objects, fresh_s=10.0, monotonic=clock)
    assert [state(), state()] == ["ok", "ok"]
    objects.down = True
    clock.now += 9
    assert state() == "ok"
    assert len(objects.calls) == 1
    clock.now += 1
    assert state() == "away"
    objects.down = False
    clock.now += 10
    assert state() == "ok"


def test_a_silent_store_is_away_at_once_and_asked_by_one_thread_only() -> None:
    objects, clock = SilentObjects(), Clock()
    state = StoreState(objects, fresh_s=10.0, wait_s=0.05, monotonic=clock)
    before, began = threading.active_count(), time.monotonic()
    for _ in range(20):
        assert state() == "away"
        clock.now += 60
    assert threading.active_count() <= before + 1
    assert time.monotonic() - began < 5
    objects.let_go.set()
    assert _soon_ok(state)


def _soon_ok(state: StoreState) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if state() == "ok":
            return True
        time.sleep(0.005)
    return False


def test_a_fault_nobody_foresaw_counts_as_away_and_does_not_end_the_asking() -> None:
    class Broken(MemoryObjects):
        broken = True

        def stat(self, key: str) -> ObjectInfo | None:
            if self.broken:
                raise RuntimeError("a bug")
            return super().stat(key)

    objects, clock = Broken(), Clock()
    state = StoreState(objects, monotonic=clock)
    assert state() == "away"
    objects.broken = False
    clock.now += 60
    assert state() == "ok"
