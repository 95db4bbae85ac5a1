from __future__ import annotations

import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.cameras import BadRead, Capture, Frame
from edge_agent.clock import Clock
from simulators.camera import change, encode_png, open_camera
from tests.edge_agent.making import START, HandClock, minting
from tests.models.runtime.tiny import part

T0 = START.timestamp()


class SteppingEvent(threading.Event):
    """A stop event whose waiting moves the clock instead of sleeping."""

    def __init__(self, hand: HandClock) -> None:
        super().__init__()
        self._hand = hand
        self.limit = 10_000

    def wait(self, timeout: float | None = None) -> bool:
        self.limit -= 1
        assert self.limit, "waits for ever"
        self._hand.move(timeout or 0.0)
        return self.is_set()


def schedule(folder: Path, *rows: dict[str, object]) -> Path:
    cv2.imwrite(str(folder / "cell.png"), part(1))
    path = folder / "schedule.jsonl"
    path.write_text("\n".join(json.dumps({"path": "cell.png", "seed": 1} | row) for row in rows))
    return path


def play(path: Path, hand: HandClock, **options: object) -> list[Frame | BadRead]:
    clock: Clock = hand.clock()
    camera = open_camera("cam-1", {"schedule": str(path)} | options, Capture(clock, minting()))
    return list(camera.frames(SteppingEvent(hand)))


def test_parts_appear_at_their_time_in_order(tmp_path: Path) -> None:
    path = schedule(tmp_path, {"serial": "b", "at": T0 + 5.5}, {"serial": "a", "at": T0 + 2})
    frames = play(path, HandClock())
    assert [f.part.serial for f in frames] == ["a", "b"]
    assert [f.captured_at.timestamp() - T0 for f in frames] == pytest.approx([2, 5.5], abs=0.01)


def test_frames_are_png_of_the_same_size_and_repeat_by_seed(tmp_path: Path) -> None:
    path = schedule(tmp_path, *({"serial": str(i), "at": T0 + i, "seed": seed} for i, seed in enumerate((7, 7, 8))))
    first, again, other = play(path, HandClock())
    assert first.data == again.data != other.data
    assert cv2.imdecode(np.frombuffer(first.data, np.uint8), cv2.IMREAD_UNCHANGED).shape == part(1).shape


def test_parts_that_went_by_are_missed_not_replayed(tmp_path: Path) -> None:
    rows = [{"serial": str(i), "at": T0 + at} for i, at in enumerate((-600, -300, -2, 1))]
    events = play(schedule(tmp_path, *rows), HandClock())
    assert isinstance(events[0], BadRead)
    assert events[0].detail.startswith("2 parts")
    assert [e.part.serial for e in events[1:]] == ["2", "3"]


def test_a_missing_image_is_a_bad_read(tmp_path: Path) -> None:
    path = schedule(tmp_path, {"serial": "a", "at": T0 + 1, "path": "nowhere.png"}, {"serial": "b", "at": T0 + 2})
    assert [type(e) for e in play(path, HandClock())] == [BadRead, Frame]


def test_stop_ends_it_at_once(tmp_path: Path) -> None:
    path = schedule(tmp_path, {"serial": "a", "at": T0 + 1e6})
    camera = open_camera("cam-1", {"schedule": str(path)}, Capture(HandClock().clock(), minting()))
    stop = threading.Event()
    stop.set()
    assert list(camera.frames(stop)) == []


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"serial": "a"}', '{"serial": "a", "at": "soon", "path": "x", "seed": 1}']
)
def test_a_bad_schedule_names_its_line(tmp_path: Path, line: str) -> None:
    path = schedule(tmp_path, {"serial": "a", "at": T0})
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(ValueError, match="line 2"):
        open_camera("cam-1", {"schedule": str(path)}, Capture(HandClock().clock(), minting()))


def test_the_change_is_small_and_has_no_black_border() -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(80, 180, (120, 120), dtype=np.uint8), (0, 0), 4)
    for seed in range(20):
        changed = change(smooth, seed=seed)
        assert changed.shape == smooth.shape
        assert 0 < np.abs(changed.astype(int) - smooth).mean() < 20
        assert changed.min() > 60


def test_colour_survives_the_round_trip() -> None:
    blue = np.zeros((10, 10, 3), dtype=np.uint8)
    blue[..., 0] = 255
    assert (cv2.imdecode(np.frombuffer(encode_png(blue), np.uint8), cv2.IMREAD_COLOR) == blue).all()
