"""A reviewer with a delay, a limited hour and a known share of mistakes, who works through the cloud's HTTP API.

`Reviewer` decides and does no I/O: which of the queue's samples to label now and with which name. The coin for a
mistake is seeded by the sample's serial, so the same run makes the same mistakes. `ReviewApi` is the door to the cloud;
`HttpReview` is the real one. A task keeps the queue's order: what the cloud puts first is labelled first.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx
import structlog

QUEUE_LIMIT = 200
log = structlog.get_logger("reviewer")


class ReviewRefused(RuntimeError):
    """The cloud will not take this reviewer's labels at all; a person must change something. One line."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A sample in the queue and the serial of its part."""

    sid: str
    serial: str


class ReviewApi(Protocol):
    """What a reviewer needs of the cloud. All calls raise `httpx.TransportError` when it cannot be reached."""

    def queue(self, line: str, limit: int) -> Sequence[Waiting]:
        """Samples waiting for a label, in the order to label them."""
        ...

    def label(self, sid: str, name: str) -> bool:
        """Label it; False when it was labelled meanwhile."""
        ...

    def skip(self, sid: str) -> None:
        """Pass it to somebody else."""
        ...


@dataclass(slots=True)
class Reviewer:
    """Decides what to label.

    Args:
        truth: the right label by serial.
        classes: every class name of the line.
        mistakes: probability of naming another class.
        delay_s: seconds a sample waits after it was first seen.
        per_hour: labels in one hour of `hour_s` seconds, given at an even pace; hours are those of the clock.
    """

    truth: Mapping[str, str]
    classes: Sequence[str]
    mistakes: float
    delay_s: float
    per_hour: int
    hour_s: float
    seed: int = 0
    _seen: dict[str, float] = field(default_factory=dict)
    _hour: int = -1
    _done: int = 0

    def due(self, queue: Sequence[Waiting], *, now: float) -> list[Waiting]:
        """Those of `queue` to label now (unix seconds), in their order."""
        for task in queue:
            self._seen.setdefault(task.sid, now)
        hour = int(now // self.hour_s)
        if hour != self._hour:
            self._hour, self._done = hour, 0
        ready = [task for task in queue if now - self._seen[task.sid] >= self.delay_s]
        allowed = math.ceil(self.per_hour * (now / self.hour_s - hour))
        return ready[: max(0, allowed - self._done)]

    def judge(self, serial: str) -> str | None:
        """The name this reviewer gives; None for a part nobody knows the truth about."""
        right = self.truth.get(serial)
        if right is None:
            return None
        coin = random.Random(f"edgeloop reviewer {self.seed} {serial}")
        if coin.random() >= self.mistakes:
            return right
        return coin.choice([name for name in self.classes if name != right])

    def labelled(self) -> None:
        """One more in this hour."""
        self._done += 1


@dataclass(slots=True)
class ReviewLoop:
    """Asks for the queue every `poll_s` seconds and labels what is due. Counts what it did."""

    api: ReviewApi
    reviewer: Reviewer
    line: str
    poll_s: float = 0.5
    now: Callable[[], float] = time.time
    labels: int = 0
    unknown: int = 0
    unreachable: int = 0

    def run(self, stop: threading.Event) -> None:
        """Until `stop`. A cloud that cannot be reached is asked again.

        Raises:
            ReviewRefused: labels are not accepted from us.
        """
        while not stop.is_set():
            try:
                self.step()
            except httpx.TransportError as fault:
                self.unreachable += 1
                log.warning("cloud_unreachable", fault=str(fault), again_in_s=self.poll_s)
            stop.wait(self.poll_s)

    def step(self) -> int:
        """One look at the queue; returns how many labels were given."""
        given = 0
        for task in self.reviewer.due(self.api.queue(self.line, QUEUE_LIMIT), now=self.now()):
            name = self.reviewer.judge(task.serial)
            if name is None:
                self.unknown += 1
                self.api.skip(task.sid)
            elif self.api.label(task.sid, name):
                self.reviewer.labelled()
                given += 1
        self.labels += given
        return given


class HttpReview:
    """The cloud's JSON API with a bearer token."""

    def __init__(self, url: str, *, token: str, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=10.0, transport=transport)

    def queue(self, line: str, limit: int) -> list[Waiting]:
        page = _checked(self._http.get(f"/api/v1/lines/{line}/queue", params={"limit": limit})).json()
        return [Waiting(sid=str(task["sid"]), serial=str(task["serial"])) for task in page["tasks"]]

    def label(self, sid: str, name: str) -> bool:
        answer = self._http.post(f"/api/v1/samples/{sid}/labels", json={"name": name, "method": "single"})
        if answer.status_code == httpx.codes.CONFLICT:
            return False
        _checked(answer)
        return True

    def skip(self, sid: str) -> None:
        answer = self._http.post(f"/api/v1/samples/{sid}/skip")
        if answer.status_code != httpx.codes.CONFLICT:
            _checked(answer)

    def close(self) -> None:
        self._http.close()


def _checked(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is a success.

    Raises:
        ReviewRefused: the cloud says no; with its own words.
        httpx.TransportError: the cloud is in trouble; ask again.
    """
    if answer.is_success:
        return answer
    if answer.is_server_error:
        raise httpx.RemoteProtocolError(f"{answer.request.url}: {answer.status_code}")
    try:
        detail = str(answer.json().get("detail", answer.text))
    except ValueError:
        detail = answer.text[:200]
    raise ReviewRefused(f"the cloud answers {answer.status_code} to {answer.request.url.path}: {detail}")
