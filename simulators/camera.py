"""A line camera that replays real images on a schedule, each with a small seeded change of pose, light and focus.

The schedule is a JSON-lines file, one part a line: ``{"serial", "at" (unix seconds), "path", "seed"}``; relative paths
count from the schedule's folder. A part appears when its time comes, whether or not anybody looks: one that is
more than `max_late_s` past when the camera gets to it went by unseen, as on a real belt, and is reported as such.
The serial is all the agent learns; the truth stays with whoever wrote the schedule.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from edge_agent.cameras import BadRead, Capture, Frame
from models.contracts.sample import Part

ROTATION_DEG = 2.0
SHIFT_PX = 3.0
GAIN = 0.06
BLUR_SIGMA_PX = 0.6
_WAIT_S = 0.25


class SimulatedOptions(BaseModel):
    """Options of a simulated camera."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Path
    max_late_s: Annotated[float, Field(gt=0)] = 10.0
    product: str | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """One line of the schedule."""

    serial: str
    at: float
    path: Path
    seed: int


def read_schedule(path: Path) -> list[Due]:
    """The schedule in order of time.

    Raises:
        ValueError: naming the line that is no part.
        OSError: the file cannot be read.
    """
    due = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            due.append(Due(str(row["serial"]), float(row["at"]), path.parent / row["path"], int(row["seed"])))
        except (ValueError, KeyError, TypeError) as fault:
            raise ValueError(f"{path}, line {number}: a part needs serial, at, path and seed") from fault
    return sorted(due, key=lambda part: part.at)


def change(pixels: NDArray[np.uint8], *, seed: int) -> NDArray[np.uint8]:
    """The same part seen again: turned up to 2 degrees, moved up to 3 px, gain up to 6 %, slightly out of focus.

    Deterministic in `seed`; the border is mirrored so that no black wedge gives the copy away.
    """
    rng = random.Random(seed)
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-ROTATION_DEG, ROTATION_DEG), 1.0)
    turn[:, 2] += rng.uniform(-SHIFT_PX, SHIFT_PX), rng.uniform(-SHIFT_PX, SHIFT_PX)
    moved = cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    gain, sigma = 1 + rng.uniform(-GAIN, GAIN), rng.uniform(0, BLUR_SIGMA_PX)
    if sigma > 0.1:
        moved = cv2.GaussianBlur(moved, (0, 0), sigma)
    return np.clip(moved.astype(np.float32) * gain, 0, 255).round().astype(np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Lossless PNG at a low compression level: a camera has no time for more."""
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise ValueError(f"cannot encode {pixels.shape} pixels as PNG")
    return data.tobytes()


def open_camera(name: str, options: Mapping[str, Any], capture: Capture) -> SimulatedCamera:
    """See `edge_agent.cameras.OpenCamera`."""
    return SimulatedCamera(name, SimulatedOptions.model_validate(dict(options)), capture)


class SimulatedCamera:
    """See the module. Opened again, it goes on with the parts that are still to come."""

    def __init__(self, name: str, options: SimulatedOptions, capture: Capture) -> None:
        self._name, self._options, self._capture = name, options, capture
        self._due = read_schedule(options.schedule)

    def frames(self, stop: threading.Event) -> Iterator[Frame | BadRead]:
        missed = 0
        for due in self._due:
            if self._now() - due.at > self._options.max_late_s:
                missed += 1
                continue
            if missed:
                yield BadRead(self._name, f"{missed} parts went by while nobody looked")
                missed = 0
            image = self._prepare(due)
            if not self._wait(due.at, stop):
                return
            yield image if isinstance(image, BadRead) else self._capture.frame(self._name, image, Part(
                serial=due.serial, product=self._options.product
            ))  # fmt: skip

    def _now(self) -> float:
        return self._capture.clock.now().timestamp()

    def _prepare(self, due: Due) -> bytes | BadRead:
        """Encoded ahead of its time, so that the frame appears on the second."""
        pixels = cv2.imread(str(due.path), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            return BadRead(self._name, f"{due.serial}: cannot read {due.path.name}")
        return encode_png(change(np.asarray(pixels, dtype=np.uint8), seed=due.seed))

    def _wait(self, at: float, stop: threading.Event) -> bool:
        """False when stopped first. Short waits, so that a wall clock set anew is noticed."""
        while (left := at - self._now()) > 0:
            if stop.wait(min(left, _WAIT_S)):
                return False
        return not stop.is_set()
