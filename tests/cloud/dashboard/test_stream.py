"""The event stream: a heartbeat always, "changed" exactly when something changed, nothing missed on reconnect."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from cloud.dashboard import queries
from cloud.dashboard.stream import Pulse, events
from cloud.db.tables import Edge, Label, Release
from tests.cloud.dashboard import seed
from tests.cloud.dashboard.plant import Plant, build


async def _take(pulse: Pulse, seen: str, count: int) -> list[str]:
    names: list[str] = []
    async for event in events(pulse, seen=seen, clock=lambda: "12:00:00", tick_s=0.0):
        lines = event.decode().splitlines()
        assert "data: 12:00:00" in lines
        names.append(lines[0].removeprefix("event: "))
        if len(names) == count:
            break
    return names


def take(values: list[str], seen: str) -> list[str]:
    ticks = iter(range(0, 1000, 10))
    left = iter(values)
    return anyio.run(_take, Pulse(lambda: next(left), monotonic=lambda: float(next(ticks))), seen, len(values))


@pytest.mark.parametrize(
    ("values", "seen", "names"),
    [
        (["a", "a", "a"], "a", ["tick", "tick", "tick"]),
        (["a", "b", "b", "c"], "a", ["tick", "changed", "tick", "changed"]),
        (["b", "b"], "a", ["changed", "tick"]),
    ],
)
def test_events(values: list[str], seen: str, names: list[str]) -> None:
    assert take(values, seen) == names


def test_many_tabs_share_one_reading() -> None:
    readings: list[int] = []
    clock = [0.0]
    pulse = Pulse(lambda: str(readings.append(1)), monotonic=lambda: clock[0])
    for _ in range(20):
        pulse.now()
    assert len(readings) == 1
    clock[0] = 1.5
    pulse.now()
    assert len(readings) == 2


def test_a_reading_that_fails_ends_the_stream() -> None:
    def fail() -> str:
        raise OSError("the database is gone")

    async def read() -> None:
        async for _ in events(Pulse(fail), seen="", clock=lambda: "12:00:00"):
            pytest.fail("a dead database must not look alive")

    with pytest.raises(OSError, match="gone"):
        anyio.run(read)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return build(tmp_path_factory.mktemp("pulse"))


@pytest.mark.parametrize("what", ["label", "box", "release", "nothing"])
def test_the_pulse_follows_what_pages_show(plant: Plant, what: str) -> None:
    with plant.services.reads() as session:
        before = queries.pulse(session)
    with plant.services.begin() as session:
        if what == "label":
            session.add(Label(sid=seed._sid(0, 1), line="cells", name="functional", author="anna", method="single",
                              queue="value", labelled_at=1))  # fmt: skip
        elif what == "box":
            session.get(Edge, "edge-1").seen_at += 1  # type: ignore[union-attr,operator]
        elif what == "release":
            session.query(Release).filter_by(number=5).one().live_at = seed.NOW
    with plant.services.reads() as session:
        assert (queries.pulse(session) != before) == (what != "nothing")


def test_an_empty_database_has_a_pulse(tmp_path: Path) -> None:
    with build(tmp_path, seeded=False).services.reads() as session:
        assert len(queries.pulse(session)) == 16
