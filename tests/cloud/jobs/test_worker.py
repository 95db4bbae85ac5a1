from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.clock import now_us
from cloud.jobs.schemas import LeasedJob, NotYet, PermanentFailure, Stopping
from cloud.jobs.worker import Beat, Handler, Worker
from cloud.objects import StoreUnavailable
from tests.cloud.registry.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    with made.begin() as session:
        made.jobs.enqueue(session, "train", "train/cells/1", {"n": 1})
    return made


def worker(world: World, handler: Handler, **fields: Any) -> Worker:
    return Worker(jobs=world.jobs, handlers={"train": handler}, owner="w", **fields)


def raising(fault: Exception) -> Handler:
    def handler(_job: LeasedJob, _beat: Beat) -> dict[str, Any]:
        raise fault

    return handler


def test_a_job_is_run_once_and_its_result_kept(world: World) -> None:
    one = worker(world, lambda job, _beat: {"saw": job.payload["n"]})
    assert one.run_one()
    assert not one.run_one()
    view = world.jobs.of_line("cells")[0]
    assert (view.state, view.result) == ("done", {"saw": 1})


@pytest.mark.parametrize(
    ("fault", "state", "attempts"),
    [
        (RuntimeError("boom"), "ready", 1),
        (PermanentFailure("mend it"), "failed", 1),
        (NotYet("busy", delay_s=3), "ready", 0),
        (Stopping(), "ready", 0),
    ],
)
def test_how_a_run_ends(world: World, fault: Exception, state: str, attempts: int) -> None:
    one = worker(world, raising(fault))
    assert one.run_one()
    view = world.jobs.of_line("cells")[0]
    assert (view.state, view.attempts) == (state, attempts)
    assert one.faults == isinstance(fault, RuntimeError)


def test_a_long_job_keeps_its_lease(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.jobs._now = now_us  # the lease is a promise in real time
    with world.begin() as session:
        world.jobs.enqueue(session, "train", "train/cells/1", {})
    taken = []

    def long(_job: LeasedJob, beat: Beat) -> dict[str, Any]:
        until = time.monotonic() + 0.9
        while time.monotonic() < until:
            beat.progress(0.5)
            taken.append(world.jobs.lease(("train",), "thief", 1))
            time.sleep(0.05)
        return {}

    worker(world, long, lease_s=0.45).run_one()
    assert set(taken) == {None}
    assert world.jobs.of_line("cells")[0].state == "done"


def test_a_handler_learns_that_its_lease_is_gone(world: World) -> None:
    seen = threading.Event()

    def slow(_job: LeasedJob, beat: Beat) -> dict[str, Any]:
        world.clock.forward(100)
        assert world.jobs.lease(("train",), "other", 1000) is not None
        until = time.monotonic() + 5
        while time.monotonic() < until:
            try:
                beat.check()
            except Exception:
                seen.set()
                raise
            time.sleep(0.01)
        return {}

    worker(world, slow, lease_s=0.06).run_one()
    assert seen.is_set()
    view = world.jobs.of_line("cells")[0]
    assert (view.state, view.owner) == ("leased", "other")


def test_stop_puts_the_running_job_back(world: World) -> None:
    stop, started = threading.Event(), threading.Event()

    def endless(_job: LeasedJob, beat: Beat) -> dict[str, Any]:
        started.set()
        while True:
            beat.check()
            time.sleep(0.005)

    thread = threading.Thread(target=worker(world, endless, poll_s=0.01).run, args=(stop,))
    thread.start()
    assert started.wait(5)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    view = world.jobs.of_line("cells")[0]
    assert (view.state, view.attempts) == ("ready", 0)


def test_a_database_that_is_away_does_not_end_the_loop(world: World) -> None:
    stop, calls = threading.Event(), []

    def broken(*_: Any) -> None:
        calls.append(1)
        if len(calls) > 2:
            stop.set()
        raise OSError("no database")

    one = worker(world, lambda _j, _b: {}, poll_s=0.001)
    world.jobs.lease = broken  # type: ignore[method-assign, assignment]
    one.run(stop)
    assert one.faults == 3


def test_an_idle_worker_prepares_in_pieces_and_jobs_come_first(world: World) -> None:
    story: list[str] = []
    stop = threading.Event()

    def ahead() -> Iterator[None]:
        for piece in ("a", "b", "c"):
            story.append(piece)
            if piece == "a":
                with world.begin() as session:
                    world.jobs.enqueue(session, "train", "train/cells/2", {})
            if piece == "c":
                stop.set()
            yield

    def handler(job: LeasedJob, _beat: Beat) -> dict[str, Any]:
        story.append(job.key)
        return {}

    worker(world, handler, ahead=ahead, poll_s=60).run(stop)
    assert story == ["train/cells/1", "a", "train/cells/2", "b", "c"]


def test_a_pass_that_fails_or_ends_is_followed_by_a_rest(world: World) -> None:
    passes: list[int] = []

    def ahead() -> Iterator[None]:
        passes.append(1)
        if len(passes) == 1:
            raise OSError("no disk")
        yield

    one = worker(world, lambda _j, _b: {}, ahead=ahead, rest_s=0.2)
    with pytest.raises(OSError, match="no disk"):
        one.prepare_one()
    assert not one.prepare_one()
    time.sleep(0.25)
    assert one.prepare_one()
    assert not one.prepare_one()
    assert len(passes) == 2


def test_a_store_that_is_away_ends_a_pass_quietly(world: World) -> None:
    def ahead() -> Iterator[None]:
        yield
        raise StoreUnavailable("away")

    one = worker(world, lambda _j, _b: {}, ahead=ahead, rest_s=60)
    assert one.prepare_one()
    assert not one.prepare_one()
    assert one.faults == 0


def test_idle_kinds_wait_until_nothing_else_is_to_do(world: World) -> None:
    story: list[str] = []
    stop = threading.Event()

    def ahead() -> Iterator[None]:
        story.append("prepared")
        yield

    def handler(job: LeasedJob, _beat: Beat) -> dict[str, Any]:
        story.append(job.key)
        return {}

    def idle(job: LeasedJob, _beat: Beat) -> dict[str, Any]:
        stop.set()
        return handler(job, _beat)

    with world.begin() as session:
        world.jobs.enqueue(session, "words", "words/cells/1", {}, not_before=-1)
    worker(world, handler, ahead=ahead, rest_s=60, idle={"words": idle}, poll_s=60).run(stop)
    assert story == ["train/cells/1", "prepared", "words/cells/1"]


def test_an_idle_job_makes_room_for_any_other_and_loses_no_attempt(world: World) -> None:
    def words(_job: LeasedJob, beat: Beat) -> dict[str, Any]:
        beat.check()
        with world.begin() as session:
            world.jobs.enqueue(session, "words", "words/cells/2", {})
        beat.check()  # its own kind is nothing to make room for
        with world.begin() as session:
            world.jobs.enqueue(session, "train", "train/cells/2", {})
        beat.check()
        pytest.fail("it went on beside a training that is due")

    one = worker(world, lambda _j, _b: {}, idle={"words": words})
    assert one.run_one()
    with world.begin() as session:
        world.jobs.enqueue(session, "words", "words/cells/1", {})
    assert one.run_idle()
    assert one.faults == 0
    view = world.jobs.by_key("words/cells/1")
    assert view is not None
    assert (view.state, view.attempts) == ("ready", 0)


def test_without_idle_kinds_there_is_nothing_idle_to_run(world: World) -> None:
    assert not worker(world, lambda _j, _b: {}).run_idle()
    assert world.jobs.of_line("cells")[0].state == "ready"
