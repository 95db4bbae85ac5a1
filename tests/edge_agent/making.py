"""Small makers shared by the agent's tests: a clock that is moved by hand, ids that repeat, frames."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import numpy as np

from edge_agent.cameras import Capture, Frame
from edge_agent.clock import Clock, Mint
from models.contracts.sample import Part
from simulators.camera import encode_png
from tests.models.runtime.tiny import part as picture

START = datetime(2026, 3, 2, 10, tzinfo=UTC)


class HandClock:
    """Wall and monotonic time that move together, and only when told."""

    def __init__(self, start: datetime = START) -> None:
        self.at = start
        self.elapsed = 0.0

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.elapsed += seconds

    def clock(self) -> Clock:
        return Clock(now=lambda: self.at, mono=lambda: self.elapsed, mono_ns=lambda: int(self.elapsed * 1e9))


def minting(seed: int = 0) -> Mint:
    return Mint(random.Random(seed).randbytes)


class Belt:
    """Gives frames one after another."""

    def __init__(self, hand: HandClock, *, camera: str = "cam-1") -> None:
        self.hand, self.camera, self.count = hand, camera, 0
        self.capture = Capture(hand.clock(), minting())

    def frame(self, *, seed: int | None = None, data: bytes | None = None, product: str | None = None) -> Frame:
        self.count += 1
        image = encode_png(picture(self.count if seed is None else seed)) if data is None else data
        return self.capture.frame(self.camera, image, Part(serial=f"s-{self.count:04d}", product=product))


def black() -> bytes:
    return encode_png(np.zeros((48, 48), dtype=np.uint8))
