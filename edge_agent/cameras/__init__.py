"""The camera port: what gives frames. A frame is stamped once, by `Capture`, when its bytes are in memory.

A camera yields frames and bad reads until `stop` is set. It may raise when it cannot go on; the feed that runs it
(`edge_agent.cameras.feed`) closes it, reports it failed and opens it again later, so no camera stops another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from edge_agent.clock import Clock, Mint
from models.contracts.sample import Part


@dataclass(frozen=True, slots=True)
class Frame:
    """One part's image as taken. `id` becomes the sample's sid if the frame is kept."""

    id: str
    camera: str
    captured_at: datetime
    mono_ns: int
    data: bytes = field(repr=False)
    part: Part


@dataclass(frozen=True, slots=True)
class BadRead:
    """The camera gave no frame where one was due. It goes on."""

    camera: str
    detail: str


class Camera(Protocol):
    """One source of frames."""

    def frames(self, stop: threading.Event) -> Iterator[Frame | BadRead]:
        """Frames in order until `stop`.

        Raises:
            OSError, ValueError: the camera cannot go on and should be opened again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Capture:
    """Stamps frames with both clocks and a fresh id.

    `room` says whether the inspector can take another frame soon. A camera whose parts can wait asks it before it takes
    one; a belt's camera does not, since its parts go by.
    """

    clock: Clock
    mint: Mint
    room: Callable[[], bool] = lambda: True

    def frame(self, camera: str, data: bytes, part: Part) -> Frame:
        now = self.clock.now()
        return Frame(
            id=self.mint(now),
            camera=camera,
            captured_at=now,
            mono_ns=self.clock.mono_ns(),
            data=data,
            part=part,
        )


OpenCamera = Callable[[str, Mapping[str, Any], Capture], Camera]
"""``open_camera(name, options, capture)``; the signature of the entry-point group ``edgeloop.cameras``.

Raises `ValueError` for options that cannot be used and `OSError` when the device is not there.
"""
