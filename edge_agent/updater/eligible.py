"""May this box take that release now? Pure: the channel manifest, the box and the time decide.

Not in an open wave, before its time or outside its window means wait and ask again at the next check. Requirements this
box can never meet, or a digest it has rejected, mean refuse and say so once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge_agent.updater.slots import Slots
from models.contracts.control import ReportReason
from models.contracts.release_manifest import ChannelManifest, Requires, Window


@dataclass(frozen=True, slots=True)
class Box:
    """What this box is and has, megabytes. `hardware` None matches only releases for any hardware."""

    edge: str
    version: str
    hardware: str | None
    memory_mb: int
    disk_mb: int


@dataclass(frozen=True, slots=True)
class Take:
    """Fetch it; `activate` False for a release that is only to be brought here."""

    activate: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now; the text is for a person."""

    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    reason: ReportReason
    why: str


def judge(channel: ChannelManifest, *, box: Box, slots: Slots, now: datetime) -> Take | Wait | Refuse:
    """See the module."""
    rejected = slots.rejection(channel.adapter.sha256)
    if rejected is not None:
        return Refuse(rejected.reason, f"rejected here before, as release {rejected.release}: {rejected.detail}"[:256])
    plan = channel.plan
    if not plan.includes(box.edge):
        mine = plan.wave_of(box.edge)
        return Wait(f"plan is {plan.state}; wave {plan.wave + 1} is open, this box is in wave {mine + 1}")
    if plan.not_before is not None and now < plan.not_before:
        return Wait(f"not before {plan.not_before:%Y-%m-%d %H:%M %Z}")
    lacking = _lacking(channel.requires, box)
    if lacking is not None:
        return Refuse(ReportReason.REQUIREMENTS, lacking)
    if plan.window is not None and not in_window(plan.window, now):
        return Wait(f"outside its maintenance window ({plan.window.tz})")
    return Take(activate=plan.mode != "download_only")


def _lacking(requires: Requires, box: Box) -> str | None:
    if requires.hardware and box.hardware not in requires.hardware:
        return f"made for {', '.join(requires.hardware)}; this box is {box.hardware or 'of no named hardware'}"[:256]
    if requires.min_agent is not None and _numbers(box.version) < _numbers(requires.min_agent):
        return f"needs agent {requires.min_agent}, this is {box.version}: update the agent"
    if requires.memory_mb > box.memory_mb:
        return f"needs {requires.memory_mb} MB of memory, the box has {box.memory_mb}"
    if requires.disk_mb > box.disk_mb:
        return f"needs {requires.disk_mb} MB of disk, {box.disk_mb} are free"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "1.4.0rc1" gives (1, 4, 0)."""
    numbers: list[int] = []
    for field in version.split("."):
        digits = "".join(c for c in field[: len(field) - len(field.lstrip("0123456789"))])
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def in_window(window: Window, now: datetime) -> bool:
    """Whether `now` lies in the window; one that crosses midnight belongs to the day it starts on.

    An unknown time zone counts as outside: better late than at the wrong hour.
    """
    try:
        local = now.astimezone(ZoneInfo(window.tz))
    except (ZoneInfoNotFoundError, ValueError):
        return False
    minute = local.hour * 60 + local.minute
    yesterday = (local - timedelta(days=1)).weekday()
    today = local.weekday() in window.days and 0 <= minute - window.start_minute < window.minutes
    before = yesterday in window.days and minute + 1440 - window.start_minute < window.minutes
    return today or before
