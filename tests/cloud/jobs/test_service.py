from __future__ import annotations

import random
from pathlib import Path

import pytest

from cloud.jobs.schemas import LeasedJob, LeaseLost
from cloud.jobs.service import JobService, RetryPolicy
from tests.cloud.registry.world import World

KINDS = ("train",)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.jobs = JobService(
        begin=made.begin, reads=made.reads, now=made.clock, draw=random.Random(1), retry=RetryPolicy(max_attempts=3)
    )
    return made


def put(world: World, key: str = "train/cells/1", not_before: int = 0) -> bool:
    with world.begin() as session:
        return world.jobs.enqueue(session, "train", key, {"line": "cells"}, not_before)


def take(world: World, owner: str = "w1", lease_s: float = 10) -> LeasedJob:
    job = world.jobs.lease(KINDS, owner, lease_s)
    assert job is not None
    return job


def test_a_key_is_one_job(world: World) -> None:
    assert put(world)
    assert not put(world)
    assert len(world.jobs.of_line("cells")) == 1


def test_a_key_must_carry_its_kind(world: World) -> None:
    with pytest.raises(ValueError, match="must start"):
        put(world, key="gate/cells/1")


def test_enqueue_is_part_of_the_callers_transaction(world: World) -> None:
    def half_way() -> None:
        with world.begin() as session:
            world.jobs.enqueue(session, "train", "train/cells/1", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_way()
    assert world.jobs.lease(KINDS, "w", 1) is None


def test_one_holder_at_a_time_and_not_before(world: World) -> None:
    put(world, not_before=world.clock() + 5_000_000)
    assert world.jobs.lease(KINDS, "w1", 10) is None
    world.clock.forward(5)
    job = take(world)
    assert (job.payload, job.attempt) == ({"line": "cells"}, 1)
    assert world.jobs.lease(KINDS, "w2", 10) is None
    assert world.jobs.lease(("gate",), "w2", 10) is None


def test_a_renewed_lease_is_not_taken_over(world: World) -> None:
    put(world)
    job = take(world)
    world.clock.forward(9)
    world.jobs.renew(job, 10, progress=0.5)
    world.clock.forward(9)
    assert world.jobs.lease(KINDS, "w2", 10) is None
    assert world.jobs.of_line("cells")[0].progress == 0.5


def test_a_dead_workers_job_is_taken_over_and_its_late_word_ignored(world: World) -> None:
    put(world)
    old = take(world)
    world.clock.forward(10.1)
    new = take(world, "w2")
    assert new.attempt == 2
    for late in (
        lambda: world.jobs.renew(old, 10),
        lambda: world.jobs.finish(old),
        lambda: world.jobs.fail(old, "late"),
        lambda: world.jobs.put_back(old),
    ):
        with pytest.raises(LeaseLost):
            late()
    world.jobs.finish(new, {"release": 2})
    view = world.jobs.of_line("cells")[0]
    assert (view.state, view.result, view.progress) == ("done", {"release": 2}, 1.0)


def test_the_same_owner_that_lost_its_lease_is_fenced_too(world: World) -> None:
    put(world)
    old = take(world)
    world.clock.forward(11)
    take(world)
    with pytest.raises(LeaseLost):
        world.jobs.finish(old)


def test_faults_back_off_and_end(world: World) -> None:
    put(world)
    waits = []
    for _ in range(2):
        job = take(world)
        assert world.jobs.fail(job, "disk on fire")
        waits.append(world.jobs.of_line("cells")[0].not_before - world.clock())
        assert world.jobs.lease(KINDS, "w", 1) is None
        world.clock.forward(10)
    assert 0 < waits[0] <= 2_000_000
    assert 0 < waits[1] <= 4_000_000
    assert not world.jobs.fail(take(world), "disk on fire")
    view = world.jobs.of_line("cells")[0]
    assert (view.state, view.error, view.attempts) == ("failed", "disk on fire", 3)
    assert world.jobs.lease(KINDS, "w", 1) is None


def test_a_job_that_kills_its_workers_is_given_up(world: World) -> None:
    put(world)
    for _ in range(3):
        take(world)
        world.clock.forward(11)
    assert world.jobs.lease(KINDS, "w", 1) is None
    view = world.jobs.of_line("cells")[0]
    assert view.state == "failed"
    assert "died" in (view.error or "")


def test_put_back_costs_no_attempt(world: World) -> None:
    put(world)
    for _ in range(10):
        world.jobs.put_back(take(world), "not yet", delay_s=1)
        world.clock.forward(1)
    assert take(world).attempt == 1


def test_jobs_of_a_line_are_not_those_of_its_namesake(world: World) -> None:
    put(world, "train/cells/1")
    put(world, "train/cells-2/1")
    assert [job.key for job in world.jobs.of_line("cells")] == ["train/cells/1"]
    with world.reads() as session:
        assert world.jobs.in_flight(session, "cells", ("train", "gate")) == ["train/cells/1"]


def test_backoff_is_capped() -> None:
    policy = RetryPolicy(base_s=2, cap_s=60)
    assert [policy.delay_s(n, 1.0) for n in (1, 2, 3, 10)] == [2, 4, 8, 60]
