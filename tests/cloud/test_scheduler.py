"""The scheduler: every tick at its time, one after the other; a bad one ends nothing."""

from __future__ import annotations

import threading

from cloud.scheduler import Scheduler


def test_ticks_run_when_due_and_failures_are_counted() -> None:
    now, ran = [0.0], []
    scheduler = Scheduler(clock=lambda: now[0])

    def bad() -> None:
        ran.append("bad")
        raise RuntimeError("no")

    scheduler.register("bad", 10, bad)
    scheduler.register("good", 3, lambda: ran.append("good"))
    assert scheduler.run_due() == 3
    now[0] = 4
    assert scheduler.run_due() == 3
    now[0] = 10
    scheduler.run_due()
    assert ran == ["bad", "good", "good", "bad", "good"]
    assert (scheduler.ticks[0].failures, scheduler.ticks[0].failed, scheduler.ticks[1].failed) == (2, 2, 0)


def test_it_starts_and_stops() -> None:
    ran = threading.Event()
    scheduler = Scheduler()
    scheduler.register("one", 0.01, ran.set)
    scheduler.start()
    assert ran.wait(5)
    scheduler.stop()
    scheduler.stop()
