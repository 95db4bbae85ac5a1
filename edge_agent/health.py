"""How the box is: counters, latency percentiles, memory, and the heartbeat made of them.

Counters are plain numbers guarded by one lock; the heartbeat reads the spool's books and the updater's state through
callables, so this module knows neither.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.cameras.feed import CameraFeed
from edge_agent.clock import Clock
from edge_agent.spool.sample import Account
from models.contracts.telemetry import CascadeHealth, CascadeSums, EstimatedShare, Heartbeat, Pending
from models.runtime.cascade import CascadeTally, Share, miss_rates

WINDOW = 1024
_PAGE_FILE = Path("/proc/self/statm")
_MEMORY_FILE = Path("/proc/meminfo")
_PAGE_BYTES = 4096


class LatencyWindow:
    """The last 1,024 latencies, milliseconds."""

    def __init__(self, size: int = WINDOW) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, milliseconds: float) -> None:
        self._values.append(milliseconds)

    def percentile(self, share: float) -> float | None:
        """Nearest-rank percentile, `share` in 0..1; None before the first value."""
        values = sorted(self._values)
        return values[min(int(share * len(values)), len(values) - 1)] if values else None


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the process started."""

    inspected: int = 0
    selected: int = 0
    dropped_frames: int = 0
    unjudged: int = 0
    not_accepted: int = 0
    over_budget: int = 0
    output_faults: int = 0
    pipeline_faults: int = 0


class Meter:
    """Counts and latencies; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = dict.fromkeys(Counts.__slots__, 0)
        self._latency = LatencyWindow()

    def count(self, name: str, by: int = 1) -> None:
        """Raises: KeyError: no such counter."""
        with self._lock:
            self._counts[name] += by

    def latency(self, milliseconds: float) -> None:
        with self._lock:
            self._latency.add(milliseconds)

    def counts(self) -> Counts:
        with self._lock:
            return Counts(**self._counts)

    def percentile(self, share: float) -> float | None:
        with self._lock:
            return self._latency.percentile(share)


def resident_bytes() -> int | None:
    """Memory this process occupies now; None where the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    return int(_PAGE_FILE.read_text().split()[1]) * _PAGE_BYTES


def physical_memory_mb() -> int:
    """Of this box; a release that names none fits everywhere, so an unknown amount counts as plenty."""
    try:
        text = _MEMORY_FILE.read_text()
    except OSError:
        return 1 << 20
    return int(text.split("MemTotal:")[1].split()[0]) >> 10


@dataclass(frozen=True, slots=True)
class ModelState:
    """What runs and where the updater is. `adapter` is a short digest for people."""

    release: int
    adapter: str | None
    previous: int | None
    update_state: str


def cascade_health(tally: CascadeTally, *, gate_line: str, gate: ModelState, trouble: str | None) -> CascadeHealth:
    """The cascade's part of a heartbeat."""
    rates = miss_rates(tally)

    def share(of: Share) -> EstimatedShare:
        return EstimatedShare(rate=of.rate, low=of.low, high=of.high)

    return CascadeHealth(
        gate_line=gate_line,
        release=gate.release,
        update_state=gate.update_state,
        trouble=trouble,
        sums=CascadeSums(**asdict(tally)),
        escape=share(rates.escape) if rates else None,
        overkill=share(rates.overkill) if rates else None,
        unsure=share(rates.unsure) if rates else None,
    )


@dataclass(frozen=True, slots=True)
class Pulse:
    """Builds heartbeats."""

    edge: str
    line: str
    version: str
    clock: Clock
    meter: Meter
    feeds: Mapping[str, CameraFeed]
    account: Callable[[], Account]
    model: Callable[[], ModelState]
    free_bytes: Callable[[], int]
    resent_bytes: Callable[[], int]
    cascade: Callable[[], CascadeHealth | None] = lambda: None

    def heartbeat(self) -> Heartbeat:
        """One heartbeat of this moment.

        Raises:
            IndexFault: the spool's books cannot be read.
        """
        books, counts, model = self.account(), self.meter.counts(), self.model()
        return Heartbeat(
            edge=self.edge,
            epoch=books.epoch,
            sent_at=self.clock.now(),
            clock_ok=self.clock.state().ok,
            version=self.version,
            line=self.line,
            max_seq=books.max_seq,
            pending=Pending(n=books.pending, bytes=books.pending_bytes, oldest_age_s=books.oldest_age_s),
            pending_ranges=books.ranges,
            pending_complete=books.complete,
            lost=books.lost,
            inspected=counts.inspected,
            selected=counts.selected,
            dropped_frames=counts.dropped_frames,
            release=model.release,
            adapter=model.adapter,
            previous=model.previous,
            update_state=model.update_state,
            spool=books.health,
            disk_free=self.free_bytes(),
            rss_bytes=resident_bytes(),
            latency_p50_ms=self.meter.percentile(0.5),
            latency_p99_ms=self.meter.percentile(0.99),
            resent_bytes=self.resent_bytes(),
            cameras={name: feed.health() for name, feed in self.feeds.items()},
            cascade=self.cascade(),
        )
