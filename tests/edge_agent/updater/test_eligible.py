from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edge_agent.updater.eligible import Box, Refuse, Take, Wait, in_window, judge
from edge_agent.updater.slots import Slots
from models.contracts.control import ReportReason
from models.contracts.release_manifest import Requires, Wave, Window
from tests.edge_agent.updater.box import channel, plan
from tests.models.runtime.tiny import tiny_release

MONDAY = datetime(2026, 3, 2, 10, tzinfo=UTC)
BOX = Box(edge="edge-1", version="1.2.3", hardware="n100", memory_mb=2000, disk_mb=500)
RELEASE = tiny_release()


def verdict(*, requires: Requires | None = None, now: datetime = MONDAY, **rollout: object) -> Take | Wait | Refuse:
    news = channel(5, RELEASE, rollout=plan(**rollout), requires=requires or Requires())
    return judge(news, box=BOX, slots=Slots(), now=now)


def test_a_fitting_release_is_taken() -> None:
    fitting = Requires(hardware=["n100", "n200"], min_agent="1.2", memory_mb=2000, disk_mb=500)
    assert verdict(requires=fitting) == Take()
    assert verdict(mode="download_only") == Take(activate=False)


@pytest.mark.parametrize(
    "requires",
    [Requires(hardware=["orin"]), Requires(min_agent="1.10.0"), Requires(memory_mb=2001), Requires(disk_mb=501)],
)
def test_a_release_for_other_boxes_is_refused(requires: Requires) -> None:
    found = verdict(requires=requires)
    assert isinstance(found, Refuse)
    assert found.reason is ReportReason.REQUIREMENTS


def test_before_its_time_it_waits() -> None:
    later = MONDAY + timedelta(hours=1)
    assert isinstance(verdict(not_before=later), Wait)
    assert verdict(not_before=later, now=later) == Take()


def test_waves_are_told_from_1_as_the_cloud_tells_them() -> None:
    first, everyone = Wave(percent=0.0, min_devices=1), Wave(percent=100.0)
    found = verdict(canaries=["edge-2"], waves=[first, everyone])
    assert found == Wait("plan is running; wave 1 is open, this box is in wave 2")


def night(start: int, minutes: int, tz: str = "Asia/Shanghai") -> Window:
    return Window(tz=tz, days=[0], start_minute=start, minutes=minutes)


def test_a_window_is_in_the_sites_time() -> None:
    # 10:00 UTC is 18:00 in Shanghai
    assert in_window(night(18 * 60, 30), MONDAY)
    assert not in_window(night(10 * 60, 30), MONDAY)
    assert not in_window(night(18 * 60, 30), MONDAY + timedelta(minutes=30))
    assert not in_window(night(18 * 60, 30), MONDAY + timedelta(days=1))


def test_a_window_across_midnight_belongs_to_its_first_day() -> None:
    window = night(23 * 60, 120, tz="UTC")
    assert in_window(window, MONDAY.replace(hour=23, minute=30))
    assert in_window(window, MONDAY.replace(hour=0, minute=30) + timedelta(days=1))
    assert not in_window(window, MONDAY.replace(hour=0, minute=30))


def test_an_unknown_time_zone_is_outside() -> None:
    assert not in_window(night(0, 1440, tz="Mars/Olympus"), MONDAY)
