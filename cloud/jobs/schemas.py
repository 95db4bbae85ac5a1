"""A job in words, and what a handler may raise.

States: ready -> leased -> done | failed; leased -> ready again after a fault that may pass, a graceful stop or a lease
that ran out. skipped is a job that was due and not wanted, kept with its reason; it may still become ready.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

JobState = Literal["ready", "leased", "done", "failed", "skipped"]
IN_FLIGHT: tuple[JobState, ...] = ("ready", "leased")


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A job this worker holds. `owner` and `attempt` together are the fence: an older holder's words are ignored."""

    id: int
    kind: str
    key: str
    payload: dict[str, Any] = field(hash=False)
    attempt: int
    owner: str
    lease_until: int


class JobView(BaseModel):
    """A job as answered. Times are microseconds since 1970; `progress` is 0 to 1."""

    id: int
    kind: str
    key: str
    state: JobState
    attempts: int
    progress: float
    owner: str | None
    not_before: int
    created_at: int
    finished_at: int | None
    result: dict[str, Any]
    error: str | None


class LeaseLost(Exception):
    """The job was taken over, or its lease ran out: stop at once, what you do is not wanted any more."""


class Stopping(Exception):
    """The worker is told to stop: the job goes back to ready and loses no attempt."""


class Overtaken(Exception):
    """Work that only fills idle time has to make room: the job goes back to ready and loses no attempt."""


class PermanentFailure(Exception):
    """Trying again cannot help; the text says what a person must do."""


class NotYet(Exception):
    """The job cannot be done now, and that is no fault: it is ready again after `delay_s` and loses no attempt."""

    def __init__(self, reason: str, *, delay_s: float) -> None:
        super().__init__(reason)
        self.delay_s = delay_s
