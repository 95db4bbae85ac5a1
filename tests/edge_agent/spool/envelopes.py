"""Envelopes for tests: complete, valid and cheap."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from models.contracts.base import sha256_hex
from models.contracts.ids import uuid7
from models.contracts.sample import (
    ClockState,
    Decision,
    ImageInfo,
    ModelRef,
    Part,
    SampleMeta,
    Selection,
    SelectionParts,
    Stratum,
    Verdict,
)

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
EDGE = "edge-1"


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def mono(self) -> float:
        return self.seconds


def builder(
    image: bytes, rng: random.Random, *, edge: str = EDGE, predicted: str = "good", u: float = 0.5, at: datetime = START
) -> Callable[[str, int], SampleMeta]:
    """What a selector hands to `Spool.put`."""

    def build(epoch: str, seq: int) -> SampleMeta:
        sid = str(uuid7(int(at.timestamp() * 1000), rng.getrandbits(80).to_bytes(10, "big")))
        return SampleMeta(
            sid=sid,
            edge=edge,
            epoch=epoch,
            seq=seq,
            line="cells",
            camera="cam-1",
            part=Part(serial=f"p{seq}"),
            captured_at=at,
            captured_mono_ns=1,
            clock=ClockState(ok=True, source="ntp"),
            image=ImageInfo(sha256=sha256_hex(image), size=len(image), type="image/png"),
            decision=Decision(verdict=Verdict.PASS, predicted=predicted, confidence=0.9, latency_ms=3.0),
            model=ModelRef(release=1, base="0" * 64, head="1" * 64, thresholds="2" * 64),
            selection=Selection(
                stratum=Stratum.HARD,
                pi_select=0.5,
                policy="test",
                parts=SelectionParts(u=u, floor=0.02, pace=1.0, draw=0.1),
            ),
        )

    return build
