"""A background thread that calls registered ticks: rollout, training hour, timestamp renewal, outbox, upkeep.

Rules: ticks run one after the other, so they never race each other; one that fails is logged with its traceback,
counted and called again after its period; what a tick does lives in its service, which takes the clock as an argument.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)


@dataclass
class Tick:
    """`due` is in seconds of the scheduler's clock; `failures` counts in a row, `failed` in all."""

    name: str
    every_s: float
    call: Callable[[], object]
    due: float = 0.0
    failures: int = 0
    failed: int = 0


@dataclass
class Scheduler:
    """See the module. `clock` is monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    ticks: list[Tick] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def register(self, name: str, every_s: float, call: Callable[[], object]) -> None:
        """Call `call` every `every_s` seconds, the first time at once."""
        self.ticks.append(Tick(name, every_s, call, due=self.clock()))

    def run_due(self) -> float:
        """Run what is due and return the seconds until the next tick."""
        for tick in self.ticks:
            if self._stopping.is_set():
                break
            if tick.due <= self.clock():
                self._run(tick)
        return max(0.0, min((tick.due for tick in self.ticks), default=self.clock() + 1.0) - self.clock())

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Let the running tick end, then stop. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _loop(self) -> None:
        while not self._stopping.wait(min(self.run_due(), 1.0)):
            pass

    def _run(self, tick: Tick) -> None:
        try:
            tick.call()
        except Exception:
            tick.failures += 1
            tick.failed += 1
            log.exception("tick_failed", tick=tick.name, in_a_row=tick.failures)
        else:
            tick.failures = 0
        tick.due = self.clock() + tick.every_s
