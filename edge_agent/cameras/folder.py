"""A folder as a camera: images dropped into it are parts, taken once each, oldest first.

A file counts as complete when its size and time did not change between two looks. It is moved to ``done`` before
its frame is handed on, so a crash never shows it twice; its bytes stay there, or are deleted with ``after =
"delete"``. Files that cannot be read or are too large to be a frame go to ``bad``. Names that start with a dot or end
in ``.tmp`` or ``.part`` are writers' temporary files and are left alone.

Files wait in the folder while the inspector is behind: a thousand at once are inspected one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.cameras import BadRead, Capture, Frame
from models.contracts.sample import Part
from models.contracts.uplink import MAX_SAMPLE_BYTES

ROOM_S = 0.01
_UNFINISHED = (".tmp", ".part")
_Look = dict[Path, tuple[int, int]]


class FolderOptions(BaseModel):
    """Options of a folder camera. `poll_s` is the time between two looks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    poll_s: Annotated[float, Field(gt=0, le=60)] = 0.2
    after: Literal["move", "delete"] = "move"
    product: str | None = None


def open_camera(name: str, options: Mapping[str, Any], capture: Capture) -> FolderCamera:
    """See `edge_agent.cameras.OpenCamera`."""
    return FolderCamera(name, FolderOptions.model_validate(dict(options)), capture)


class FolderCamera:
    """See the module."""

    def __init__(self, name: str, options: FolderOptions, capture: Capture) -> None:
        self._name, self._options, self._capture = name, options, capture

    def frames(self, stop: threading.Event) -> Iterator[Frame | BadRead]:
        for aside in ("done", "bad"):
            (self._options.folder / aside).mkdir(parents=True, exist_ok=True)
        before: _Look = {}
        while not stop.is_set():
            now = self._look()
            for path in sorted(now, key=lambda p: (now[p][1], p.name)):
                while not self._capture.room() and not stop.is_set():
                    stop.wait(ROOM_S)
                if stop.is_set():
                    return
                if before.get(path) == now[path]:
                    yield self._take(path, size=now[path][0])
            before = now
            stop.wait(self._options.poll_s)

    def _look(self) -> _Look:
        """Files that may be parts, with size in bytes and modification time in nanoseconds."""
        found: _Look = {}
        for path in self._options.folder.iterdir():
            if path.name.startswith(".") or path.suffix in _UNFINISHED:
                continue
            try:
                if path.is_file():
                    stat = path.stat()
                    found[path] = (stat.st_size, stat.st_mtime_ns)
            except FileNotFoundError:
                continue  # its writer took it away between the two calls
        return found

    def _take(self, path: Path, *, size: int) -> Frame | BadRead:
        if not 0 < size <= MAX_SAMPLE_BYTES:
            return self._set_aside(path, f"{size} bytes; a frame has 1 to {MAX_SAMPLE_BYTES}")
        try:
            part = Part(serial=path.stem, product=self._options.product)
            data = path.read_bytes()
            self._finish(path)
        except (OSError, ValueError) as fault:
            return self._set_aside(path, str(fault).splitlines()[0])
        return self._capture.frame(self._name, data, part)

    def _finish(self, path: Path) -> None:
        if self._options.after == "delete":
            path.unlink()
        else:
            path.replace(self._free_name("done", path))

    def _set_aside(self, path: Path, why: str) -> BadRead:
        """Out of the way, so that one bad file is reported once.

        Raises:
            OSError: it cannot even be moved: the folder is unusable, and the feed says so and tries again later.
        """
        path.replace(self._free_name("bad", path))
        return BadRead(self._name, f"{path.name!r}: {why}; moved to bad/"[:256])

    def _free_name(self, aside: str, path: Path) -> Path:
        target = self._options.folder / aside / path.name
        number = 1
        while target.exists():
            target = target.with_name(f"{path.stem}~{number}{path.suffix}")
            number += 1
        return target
