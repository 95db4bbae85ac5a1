from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from edge_agent.cameras import BadRead, Capture, Frame
from edge_agent.cameras.folder import open_camera
from tests.edge_agent.making import HandClock, minting


def camera(folder: Path, **options: object):
    return open_camera(
        "cam-1", {"folder": str(folder), "poll_s": 0.01} | options, Capture(HandClock().clock(), minting())
    )


class Watching:
    """Takes events with a deadline, so a camera that gives nothing fails the test instead of hanging it."""

    def __init__(self, source: Iterator[Frame | BadRead], stop: threading.Event) -> None:
        self._source, self.stop = source, stop

    def next(self, *, within_s: float = 5.0) -> Frame | BadRead | None:
        timer = threading.Timer(within_s, self.stop.set)
        timer.start()
        try:
            return next(self._source, None)
        finally:
            timer.cancel()


def watching(folder: Path, **options: object) -> Watching:
    stop = threading.Event()
    return Watching(camera(folder, **options).frames(stop), stop)


def test_each_file_is_taken_once_and_moved(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    watch = watching(tmp_path)
    seen = [watch.next() for _ in range(2)]
    assert {(f.part.serial, f.data) for f in seen} == {("a", b"a"), ("b", b"b")}
    assert len({f.id for f in seen}) == 2
    assert watch.next(within_s=0.1) is None
    assert sorted(p.name for p in (tmp_path / "done").iterdir()) == ["a.png", "b.png"]


def test_the_same_name_again_is_another_part_and_overwrites_nothing(tmp_path: Path) -> None:
    watch = watching(tmp_path)
    for content in (b"1", b"2"):
        (tmp_path / "a.png").write_bytes(content)
        assert watch.next().data == content
    assert sorted(p.read_bytes() for p in (tmp_path / "done").iterdir()) == [b"1", b"2"]


def test_a_file_that_still_grows_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    growing = threading.Event()

    def write() -> None:
        with path.open("wb") as out:
            for _ in range(10):
                out.write(b"x" * 10)
                out.flush()
                growing.wait(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    frame = watching(tmp_path, poll_s=0.1).next()
    writer.join(5)
    assert len(frame.data) == 100


def test_temporary_files_and_folders_are_left_alone(tmp_path: Path) -> None:
    for name in (".hidden.png", "a.tmp", "b.part"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    assert watching(tmp_path).next(within_s=0.1) is None


def test_an_empty_file_is_a_bad_read_and_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "z.png").write_bytes(b"z")
    watch = watching(tmp_path)
    events = [watch.next(), watch.next()]
    assert [type(e) for e in sorted(events, key=lambda e: isinstance(e, Frame))] == [BadRead, Frame]
    assert (tmp_path / "bad" / "a.png").exists()


def test_delete_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    watch = watching(tmp_path, after="delete", product="p-1")
    assert watch.next().part.product == "p-1"
    assert list((tmp_path / "done").iterdir()) == []


def test_a_serial_that_could_disturb_a_log_is_a_bad_read(tmp_path: Path) -> None:
    (tmp_path / "a\u202eb.png").write_bytes(b"x")
    assert isinstance(watching(tmp_path).next(), BadRead)


@pytest.mark.parametrize("options", [{}, {"folder": "x", "colour": 1}, {"folder": "x", "poll_s": 0}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        open_camera("cam-1", options, Capture(HandClock().clock(), minting()))


def test_files_wait_while_the_inspector_has_no_room(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    room = [False]
    capture = Capture(HandClock().clock(), minting(), lambda: room[0])
    stop = threading.Event()
    watch = Watching(open_camera("cam-1", {"folder": str(tmp_path), "poll_s": 0.01}, capture).frames(stop), stop)
    threading.Timer(0.2, lambda: room.__setitem__(0, True)).start()
    assert isinstance(watch.next(), Frame)
    room[0] = False
    assert watch.next(within_s=0.2) is None
    assert (tmp_path / "b.png").exists(), "a file nobody can look at yet stays where it is"
