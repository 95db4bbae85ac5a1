"""The thread that keeps a box up to date: polls with jitter, follows hints, never dies.

A hint can at most cause one extra check: hints within `HINT_GAP_S` of a check are put off to its end, and each waits a
random part of `spread_s`, so a fleet does not come at once. Trouble backs off from 2 seconds to the poll interval.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import structlog

from edge_agent.updater.updater import Updater
from ota.errors import TransientError

HINT_GAP_S = 3.0
FIRST_RETRY_S = 2.0
POLL_JITTER = 0.2
_log = structlog.get_logger("updater")


class UpdateLoop:
    """See the module."""

    def __init__(
        self, updater: Updater, *, poll_s: float, spread_s: float, mono: Callable[[], float], rng: random.Random
    ) -> None:
        self._updater, self._poll_s, self._spread_s, self._mono, self._rng = updater, poll_s, spread_s, mono, rng
        self._woken = threading.Condition()
        self._stopping = False
        self._concluding = False
        self._due = mono()
        self._checked = float("-inf")
        self._failures = 0
        self.faults = 0
        self._thread = threading.Thread(target=self._run, name="updater", daemon=True)
        updater.wake = self._wake

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End after the step that is under way, at most `timeout` seconds."""
        with self._woken:
            self._stopping = True
            self._woken.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def hint(self) -> None:
        """Somebody says there is news: check soon."""
        with self._woken:
            earliest = max(self._mono() + self._rng.uniform(0, self._spread_s), self._checked + HINT_GAP_S)
            self._due = min(self._due, earliest)
            self._woken.notify()

    def _wake(self) -> None:
        with self._woken:
            self._concluding = True
            self._woken.notify()

    def _run(self) -> None:
        while self._wait():
            try:
                self.step()
            except Exception as fault:  # noqa: BLE001 - the thread's outermost edge: updating must outlive any fault
                self.faults += 1
                self._postpone()
                _log.error("the update step failed", exc_info=fault)

    def _wait(self) -> bool:
        """Until something is due; False when stopping."""
        with self._woken:
            while not self._stopping and not self._concluding and (left := self._due - self._mono()) > 0:
                self._woken.wait(left)
            return not self._stopping

    def step(self) -> None:
        """Conclude a finished probation, then check if it is time."""
        with self._woken:
            self._concluding, due = False, self._due <= self._mono()
            if due:
                self._checked = self._mono()
                self._due = self._checked + self._poll_s * self._rng.uniform(1 - POLL_JITTER, 1 + POLL_JITTER)
        self._updater.conclude()
        if not due:
            return
        try:
            self._updater.check()
        except (TransientError, OSError) as fault:
            self._updater.trouble = str(fault)[:256]
            self._postpone()
            _log.warning("cannot update now", detail=str(fault), failures=self._failures)
        else:
            self._failures = 0

    def _postpone(self) -> None:
        self._failures += 1
        ceiling = min(FIRST_RETRY_S * 2 ** min(self._failures - 1, 12), self._poll_s)
        with self._woken:
            self._due = self._mono() + self._rng.uniform(ceiling / 2, ceiling)
