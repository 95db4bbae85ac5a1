"""Runs one camera in its own thread: hands frames on, reopens it after a failure, knows how it is.

A failing camera is retried with full-jitter backoff from 1 to 60 seconds for ever; the others never notice.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Literal

import structlog

from edge_agent.cameras import BadRead, Camera, Frame
from models.contracts.sample import CannotJudge
from models.contracts.telemetry import CameraHealth

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
BAD_EXPOSURE_AFTER = 10
_EXPOSURE = frozenset({CannotJudge.TOO_DARK, CannotJudge.TOO_BRIGHT, CannotJudge.NO_CONTRAST})
_log = structlog.get_logger("camera")


class CameraFeed:
    """See the module. `open_camera` is called again after every failure; `deliver` must not block for long."""

    def __init__(
        self,
        *,
        name: str,
        open_camera: Callable[[], Camera],
        deliver: Callable[[Frame], None],
        mono: Callable[[], float],
        rng: random.Random,
        silent_after_s: float = 600.0,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self.name = name
        self._open, self._deliver, self._mono, self._rng = open_camera, deliver, mono, rng
        self._silent_after_s, self._first_retry_s = silent_after_s, first_retry_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)
        self._started = self._last_frame = mono()
        self._frames = self._failures = self._unexposed = 0
        self._fault: str | None = None
        self.bad_reads = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ask the camera to end and wait for it at most `timeout` seconds."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def judged(self, reason: CannotJudge | None) -> None:
        """What came of this camera's newest frame; a run of unusable exposures makes it unhealthy."""
        self._unexposed = self._unexposed + 1 if reason in _EXPOSURE else 0

    def health(self) -> CameraHealth:
        age = self._mono() - self._last_frame
        detail = self._fault
        if self._fault is not None and self._failures:
            return CameraHealth(state="failed", frames=self._frames, age_s=age, detail=detail)
        if self._unexposed >= BAD_EXPOSURE_AFTER:
            detail = f"{self._unexposed} frames in a row too dark, too bright or without contrast"
            return CameraHealth(state="bad_exposure", frames=self._frames, age_s=age, detail=detail)
        state: Literal["silent", "ok"] = "silent" if age > self._silent_after_s else "ok"
        return CameraHealth(state=state, frames=self._frames, age_s=age, detail=detail)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except Exception as fault:  # noqa: BLE001 - the thread's outermost edge: a driver may raise anything
                self._failed(fault)
            else:
                return  # the camera said it has no more frames, or we are stopping
            self._stop.wait(self._backoff())

    def _read(self) -> None:
        for event in self._open().frames(self._stop):
            if isinstance(event, BadRead):
                self.bad_reads += 1
                self._fault = event.detail[:256]
                _log.warning("bad read", camera=self.name, detail=event.detail)
                continue
            self._frames += 1
            self._failures = 0
            self._last_frame = self._mono()
            self._deliver(event)

    def _failed(self, fault: Exception) -> None:
        self._failures += 1
        text = "".join(character for character in f"{type(fault).__name__}: {fault}" if character.isprintable())
        self._fault = text[:256]
        _log.error("camera failed", camera=self.name, failures=self._failures, exc_info=fault)

    def _backoff(self) -> float:
        ceiling = min(self._first_retry_s * 2 ** min(self._failures - 1, 10), LONGEST_RETRY_S)
        return self._rng.uniform(ceiling / 2, ceiling)
