"""Watching a run from outside: journals as they grow, memory of the boxes, what the cloud's API says."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from simulators.demo.figures import Estimate
from simulators.demo.journal import HourCounts, Journals, by_hour
from simulators.demo.records import CloudApi, Records
from simulators.demo.scenario import LINE, Scenario
from simulators.demo.schedule import Showing
from simulators.servers.children import Child


def peak_bytes(pid: int) -> int:
    """Peak resident memory of a process so far; 0 when it is gone. Exact on Linux, elsewhere what it is now."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def estimates(document: Sequence[Mapping[str, Any]]) -> dict[int, Estimate]:
    """The API's accuracy by period."""
    found: dict[int, Estimate] = {}
    for row in document:
        one = row["accuracy"]
        words = f"not enough labels: {row['labels']} of {row['needed']}"
        note = None if one else words if row["status"] == "not_enough_labels" else row["status"].replace("_", " ")
        values = {} if one is None else {key: float(one[key]) for key in ("value", "low", "high")}
        found[int(row["period"])] = Estimate(labels=int(row["labels"]), note=note, **values)
    return found


@dataclass(slots=True)
class Snapshot:
    """What is known now. `hour` is 0 before the first."""

    hour: int
    seconds_left: float
    hours: Sequence[HourCounts]
    estimates: Mapping[int, Estimate]
    uploads: Mapping[int, int]
    labels: Mapping[int, int]
    open_tasks: int
    releases: Mapping[str, int]
    peak_rss_bytes: Mapping[str, int]


@dataclass(slots=True)
class Watch:
    """Collects snapshots. The API is asked at most every `api_s` seconds; when it is away the last answer stands."""

    scenario: Scenario
    first: float
    showings: Sequence[Showing]
    journals: Journals
    api: CloudApi
    records: Callable[[], Records]
    boxes: Mapping[str, Child]
    now: Callable[[], float] = time.time
    api_s: float = 2.0
    estimates: dict[int, Estimate] = field(default_factory=dict)
    fleet: dict[str, Any] = field(default_factory=dict)
    open_tasks: int = 0
    uploads: Counter[int] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    peaks: dict[str, int] = field(default_factory=dict)
    unanswered: int = 0
    _asked: float = 0.0

    def look(self) -> Snapshot:
        """One look at everything."""
        self.journals.poll()
        for name, child in self.boxes.items():
            self.peaks[name] = max(self.peaks.get(name, 0), peak_bytes(child.pid))
        if self.now() - self._asked >= self.api_s:
            self.ask()
        return self._snapshot()

    def ask(self) -> None:
        """Ask the cloud now."""
        self._asked = self.now()
        known, hours = self.records(), {part.serial: part.hour for part in self.showings}
        self.uploads = Counter(hours[upload.serial] for upload in known.uploads if upload.serial in hours)
        self.labels = Counter(hours[label.serial] for label in known.labels if label.serial in hours)
        try:
            self.estimates = estimates(self.api.accuracy(LINE))
            self.fleet = self.api.fleet()
            self.open_tasks = self.api.open_tasks(LINE)
        except (httpx.TransportError, httpx.HTTPStatusError):
            self.unanswered += 1

    def _snapshot(self) -> Snapshot:
        passed = self.now() - self.first
        hour = 0 if passed < 0 else min(self.scenario.hours, int(passed // self.scenario.hour_s) + 1)
        end = self.first + (hour * self.scenario.hour_s if hour else 0)
        boxes = self.fleet.get("edges", [])
        return Snapshot(
            hour=hour,
            seconds_left=max(0.0, end - self.now()),
            hours=by_hour(self.showings, self.journals.entries),
            estimates=self.estimates_by_hour(),
            uploads=dict(self.uploads),
            labels=dict(self.labels),
            open_tasks=self.open_tasks,
            releases={box["name"]: int(box["heartbeat"].get("release", 0)) for box in boxes},
            peak_rss_bytes=dict(self.peaks),
        )

    def estimates_by_hour(self) -> dict[int, Estimate]:
        """The estimates under the run's own hours."""
        start = int(self.first // self.scenario.hour_s) - 1
        return {period - start: one for period, one in self.estimates.items() if period > start}


def interruptible_sleep(stop: threading.Event) -> Callable[[float], None]:
    """A sleep that ends at once when `stop` is set, by raising what Ctrl-C raises."""

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise KeyboardInterrupt

    return sleep
