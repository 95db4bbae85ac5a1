from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

from edge_agent.cameras import BadRead, Frame
from edge_agent.cameras.feed import BAD_EXPOSURE_AFTER, CameraFeed
from models.contracts.sample import CannotJudge
from tests.edge_agent.making import Belt, HandClock


class Script:
    """Each opening plays the next list of events; an exception in it is raised, the end of all means silence."""

    def __init__(self, *openings: list[object]) -> None:
        self.openings = list(openings)
        self.opened = 0

    def open(self) -> Script:
        self.opened += 1
        return self

    def frames(self, stop: threading.Event) -> Iterator[Frame | BadRead]:
        events = self.openings.pop(0) if self.openings else []
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event
        if not self.openings:
            stop.wait()
        else:
            raise OSError("unplugged")


def feed(script: Script, deliver: Callable[[Frame], None], *, mono: Callable[[], float] = time.monotonic) -> CameraFeed:
    return CameraFeed(
        name="cam-1", open_camera=script.open, deliver=deliver, mono=mono, rng=random.Random(1), first_retry_s=0.01
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 5 s"
        time.sleep(0.005)


def test_a_failing_camera_is_opened_again_and_loses_no_frame_of_the_next_opening() -> None:
    belt, seen = Belt(HandClock()), []
    script = Script([belt.frame(), OSError("bus reset")], [ValueError("bad mode")], [belt.frame(), belt.frame()])
    one = feed(script, seen.append)
    one.start()
    until(lambda: len(seen) == 3)
    one.stop(5)
    assert [frame.part.serial for frame in seen] == ["s-0001", "s-0002", "s-0003"]
    assert script.opened == 3
    assert one.health().state == "ok"


def test_one_camera_down_does_not_touch_the_others() -> None:
    belt, seen = Belt(HandClock()), []
    broken = feed(Script(*[[OSError("no device")] for _ in range(50)]), seen.append)
    sound = feed(Script([belt.frame()]), seen.append)
    for one in (broken, sound):
        one.start()
    until(lambda: len(seen) == 1 and broken.health().state == "failed")
    assert "no device" in broken.health().detail
    assert sound.health().state == "ok"
    for one in (broken, sound):
        one.stop(5)


def test_a_bad_read_is_counted_and_the_camera_goes_on() -> None:
    belt, seen = Belt(HandClock()), []
    one = feed(Script([BadRead("cam-1", "truncated"), belt.frame()]), seen.append)
    one.start()
    until(lambda: len(seen) == 1)
    one.stop(5)
    assert (one.bad_reads, one.health().detail, one.health().state) == (1, "truncated", "ok")


def test_silence_and_unusable_exposure_show() -> None:
    now = [0.0]
    one = feed(Script(), lambda frame: None, mono=lambda: now[0])
    now[0] = 601.0
    assert one.health().state == "silent"
    for _ in range(BAD_EXPOSURE_AFTER):
        one.judged(CannotJudge.TOO_DARK)
    assert one.health().state == "bad_exposure"
    one.judged(None)
    assert one.health().state == "silent"
