"""The reviewer: mistakes at the stated rate, a delay, a limited hour; and the HTTP door with real answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import pytest

from simulators.reviewer import HttpReview, Reviewer, ReviewLoop, ReviewRefused, Waiting

CLASSES = ("good", "defective")
HOUR_S = 40.0
START = 1_000_000 * HOUR_S
END = START + HOUR_S - 0.001


def reviewer(*, mistakes: float = 0.0, delay_s: float = 0.0, per_hour: int = 10_000, seed: int = 0) -> Reviewer:
    truth = {f"P{n:06d}": CLASSES[n % 2] for n in range(5000)}
    return Reviewer(truth, CLASSES, mistakes=mistakes, delay_s=delay_s, per_hour=per_hour, hour_s=HOUR_S, seed=seed)


def waiting(count: int) -> list[Waiting]:
    return [Waiting(f"sid-{n}", f"P{n:06d}") for n in range(count)]


@pytest.mark.parametrize(("mistakes", "low", "high"), [(0.0, 0, 0), (0.02, 70, 130), (0.2, 900, 1100)])
def test_mistakes_happen_at_the_stated_rate(mistakes: float, low: int, high: int) -> None:
    one = reviewer(mistakes=mistakes)
    wrong = sum(one.judge(serial) != right for serial, right in one.truth.items())
    assert low <= wrong <= high  # of 5,000; three standard deviations at 2 % are 30


def test_mistakes_are_the_same_again_and_other_with_another_seed() -> None:
    def names(seed: int) -> list[str | None]:
        one = reviewer(mistakes=0.1, seed=seed)
        return [one.judge(serial) for serial in one.truth]

    assert names(1) == names(1)
    assert names(1) != names(2)


def test_a_wrong_name_is_still_a_class_of_the_line() -> None:
    one = reviewer(mistakes=0.49)
    assert {one.judge(serial) for serial in one.truth} == set(CLASSES)


def test_an_unknown_part_is_not_judged() -> None:
    assert reviewer().judge("P999999") is None


def test_a_sample_waits_for_the_delay() -> None:
    one = reviewer(delay_s=4.0)
    assert one.due(waiting(1), now=END - 6) == []
    assert one.due(waiting(1), now=END - 2.1) == []
    assert one.due(waiting(1), now=END - 2) == waiting(1)


def test_an_hour_has_room_for_so_many_labels_evenly() -> None:
    one = reviewer(per_hour=4)
    assert len(one.due(waiting(9), now=START + 1)) == 1
    assert len(one.due(waiting(9), now=START + 29)) == 3
    for _ in one.due(waiting(9), now=END):
        one.labelled()
    assert one.due(waiting(9), now=END) == []
    assert len(one.due(waiting(9), now=END + HOUR_S)) == 4


def test_the_order_of_the_queue_is_kept() -> None:
    queue = list(reversed(waiting(5)))
    assert reviewer(per_hour=3).due(queue, now=END) == queue[:3]


@dataclass
class FakeCloud:
    """Answers as the cloud does, over httpx' own transport."""

    tasks: list[str]
    labels: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    fault: Callable[[httpx.Request], httpx.Response | None] = lambda _request: None

    def handle(self, request: httpx.Request) -> httpx.Response:
        if (faulty := self.fault(request)) is not None:
            return faulty
        assert request.headers["authorization"] == "Bearer secret"
        path = request.url.path.split("/")
        if path[-1] == "queue":
            tasks = [{"sid": serial, "serial": serial} for serial in self.tasks]
            return httpx.Response(200, json={"line": "cells", "open": {}, "tasks": tasks, "next": None})
        sid = path[-2]
        if sid not in self.tasks:
            return httpx.Response(409, json={"code": "closed", "detail": "labelled meanwhile"})
        self.tasks.remove(sid)
        if path[-1] == "skip":
            self.skipped.append(sid)
            return httpx.Response(200, json={})
        self.labels[sid] = httpx.Response(200, content=request.content).json()["name"]
        return httpx.Response(201, json={})

    def loop(self, one: Reviewer) -> ReviewLoop:
        api = HttpReview("http://cloud", token="secret", transport=httpx.MockTransport(self.handle))
        return ReviewLoop(api, one, "cells", poll_s=0.001, now=lambda: END)


def test_what_is_due_is_labelled_and_the_unknown_is_skipped() -> None:
    cloud = FakeCloud(["P000001", "P999999", "P000002"])
    loop = cloud.loop(reviewer())
    assert loop.step() == 2
    assert cloud.labels == {"P000001": "defective", "P000002": "good"}
    assert cloud.skipped == ["P999999"]
    assert (loop.labels, loop.unknown) == (2, 1)


def test_a_sample_labelled_meanwhile_takes_no_place_in_the_hour() -> None:
    cloud = FakeCloud(["P000001", "P000002"])
    api = HttpReview("http://cloud", token="secret", transport=httpx.MockTransport(cloud.handle))
    one = reviewer(per_hour=2)
    due = one.due(api.queue("cells", 10), now=END)
    cloud.tasks.remove("P000001")
    assert not api.label(due[0].sid, "good")
    assert api.label(due[1].sid, "good")


def test_a_cloud_that_is_away_is_asked_again() -> None:
    failures = iter([httpx.Response(503), httpx.Response(500)])
    cloud = FakeCloud(["P000001"], fault=lambda _request: next(failures, None))
    loop, stop = cloud.loop(reviewer()), threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    for _ in range(2000):
        if cloud.labels:
            break
        stop.wait(0.005)
    stop.set()
    thread.join(5)
    assert cloud.labels
    assert loop.unreachable == 2


def test_a_refusal_says_what_the_cloud_said() -> None:
    answer = httpx.Response(403, json={"detail": "reviewer is a viewer; this needs the role labeller."})
    cloud = FakeCloud(["P000001"], fault=lambda request: answer if request.method == "POST" else None)
    with pytest.raises(ReviewRefused, match=r"the cloud answers 403 .* this needs the role labeller"):
        cloud.loop(reviewer()).step()
