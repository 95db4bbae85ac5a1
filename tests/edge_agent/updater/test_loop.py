from __future__ import annotations

import random
import threading

import pytest

from edge_agent.updater.loop import HINT_GAP_S, UpdateLoop
from ota.errors import TransientError


class FakeUpdater:
    def __init__(self) -> None:
        self.checks = self.conclusions = 0
        self.fault: Exception | None = None
        self.trouble: str | None = None
        self.wake = lambda: None
        self.checked = threading.Event()

    def conclude(self) -> None:
        self.conclusions += 1

    def check(self) -> None:
        self.checks += 1
        self.checked.set()
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def time() -> list[float]:
    return [0.0]


def loop(updater: FakeUpdater, time: list[float], *, spread: float = 0.0) -> UpdateLoop:
    return UpdateLoop(updater, poll_s=100, spread_s=spread, mono=lambda: time[0], rng=random.Random(1))


def test_it_checks_at_once_and_then_at_the_poll_interval(time: list[float]) -> None:
    updater = FakeUpdater()
    runner = loop(updater, time)
    runner.step()
    time[0] = 79
    runner.step()
    assert updater.checks == 1
    time[0] = 121
    runner.step()
    assert updater.checks == 2


def test_a_flood_of_hints_costs_one_check_per_gap(time: list[float]) -> None:
    updater = FakeUpdater()
    runner = loop(updater, time)
    runner.step()
    for _ in range(1000):
        runner.hint()
        runner.step()
    assert updater.checks == 1
    time[0] = HINT_GAP_S
    runner.step()
    assert updater.checks == 2


def test_hints_are_spread(time: list[float]) -> None:
    updater = FakeUpdater()
    runner = loop(updater, time, spread=20.0)
    runner.step()
    time[0] = 50
    runner.hint()
    runner.step()
    assert updater.checks == 1
    time[0] = 70
    runner.step()
    assert updater.checks == 2


def test_trouble_backs_off_up_to_the_poll_interval(time: list[float]) -> None:
    updater = FakeUpdater()
    updater.fault = TransientError("server away")
    runner = loop(updater, time)
    gaps, last = [], 0.0
    for _ in range(4000):
        before = updater.checks
        runner.step()
        if updater.checks > before:
            gaps.append(time[0] - last)
            last = time[0]
        time[0] += 0.25
    assert gaps[1] <= 2.5
    assert 40 <= max(gaps) <= 101
    assert updater.trouble == "server away"


def test_the_thread_outlives_any_fault_and_hears_wake_and_stop() -> None:
    updater = FakeUpdater()
    updater.fault = RuntimeError("never seen before")
    clock = threading.Event()
    runner = UpdateLoop(updater, poll_s=0.02, spread_s=0, mono=__import__("time").monotonic, rng=random.Random(1))
    runner.start()
    while runner.faults < 2:
        assert not clock.wait(0.01)
    before = updater.conclusions
    updater.wake()
    while updater.conclusions == before:
        assert not clock.wait(0.01)
    runner.stop(5)
    assert not runner._thread.is_alive()
