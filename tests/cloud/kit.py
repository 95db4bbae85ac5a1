"""What the cloud's tests build on: a real SQLite file, a settable clock, the object store fake, offers."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sqlalchemy import Engine

from cloud.clock import from_us
from cloud.db.migrate import upgrade
from cloud.db.session import Begin, open_engine, reads, transactions
from cloud.db.tables import Edge, Line
from cloud.ingest.archive import Archive
from cloud.ingest.dead_letters import DeadLetters
from cloud.ingest.presence import PresenceBook
from cloud.ingest.records import Records
from cloud.ingest.service import IngestService, Reply
from cloud.ingest.staging import Landing, StagingFiles
from cloud.ingest.uploads import Uploads
from cloud.settings import IngestSection, ReviewSection
from models.contracts import topics
from models.contracts.base import canonical, decode, sha256_hex
from models.contracts.chunk import Chunk, chunk_count, encode_chunk
from models.contracts.control import SignedReport
from models.contracts.ids import uuid7
from models.contracts.uplink import Ack
from simulators.objects import MemoryObjects

NOW = 1_790_000_000_000_000
EPOCH = "00112233445566aa"
CLASSES = [
    {"name": "good", "defect": False, "must_catch": False},
    {"name": "crack", "defect": True, "must_catch": True},
]


@dataclass
class Clock:
    """Microseconds, moved by hand."""

    us: int = NOW

    def __call__(self) -> int:
        return self.us

    def advance(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


def png(seed: int, size: tuple[int, int] = (24, 32)) -> bytes:
    """A small real image."""
    pixels = np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


@dataclass
class Shot:
    """A sample as an edge would offer it."""

    seq: int
    data: bytes
    edge: str = "edge-1"
    epoch: str = EPOCH
    line: str = "cells"
    sid: str = ""
    stratum: str = "hard"
    u: float | None = 0.5
    pi_select: float = 0.5
    pi_survive: float = 1.0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sid:
            entropy = random.Random(f"{self.edge}{self.epoch}{self.seq}").randbytes(10)
            self.sid = str(uuid7(NOW // 1000, entropy))

    @property
    def sha256(self) -> str:
        return sha256_hex(self.data)

    def meta(self) -> dict[str, Any]:
        at = from_us(NOW).isoformat()
        document = {
            "v": 1, "sid": self.sid, "edge": self.edge, "epoch": self.epoch, "seq": self.seq, "line": self.line,
            "camera": "cam-1", "part": {"serial": f"P{self.seq}"}, "captured_at": at, "captured_mono_ns": 1,
            "clock": {"ok": True}, "image": {"sha256": self.sha256, "size": len(self.data), "type": "image/png"},
            "decision": {
                "verdict": "reject", "predicted": "crack", "confidence": 0.9, "defect_score": 0.9,
                "scores": {"good": 0.1, "crack": 0.9}, "latency_ms": 5.0,
            },
            "model": {"release": 1, "base": "b" * 64, "head": "c" * 64, "thresholds": "d" * 64},
            "selection": {
                "stratum": self.stratum, "pi_select": self.pi_select, "policy": "test",
                "parts": {"u": self.u, "floor": 0.02, "pace": 1.0, "draw": 0.1},
            },
        }  # fmt: skip
        return document | self.extra

    def item(self, **changes: Any) -> dict[str, Any]:
        meta = self.meta()
        item = {
            "sid": self.sid, "seq": self.seq, "sha256": self.sha256, "size": len(self.data), "type": "image/png",
            "meta_sha": sha256_hex(canonical(meta)), "meta": meta, "prio": "hard", "pi_survive": self.pi_survive,
            "captured_at": meta["captured_at"], "clock_ok": True,
        }  # fmt: skip
        return item | changes

    def chunks(self, size: int) -> list[bytes]:
        count = chunk_count(len(self.data), size)
        size = len(self.data) if count == 1 else size
        parts = [self.data[i * size : (i + 1) * size] for i in range(count)]
        return [
            encode_chunk(Chunk(sid=self.sid, index=i, count=count, size=size, data=part))
            for i, part in enumerate(parts)
        ]


def offer(*shots: Shot, items: list[dict[str, Any]] | None = None) -> bytes:
    """An offer of all shots (which share edge and epoch)."""
    return canonical(
        {"v": 1, "edge": shots[0].edge, "epoch": shots[0].epoch, "items": items or [shot.item() for shot in shots]}
    )


@cache
def _migrated() -> bytes:
    """An empty database at the newest revision: migrated once, copied for every test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        engine = open_engine(f"sqlite:///{path}")
        upgrade(engine)
        engine.dispose()  # the last connection to close folds the write-ahead log into the file
        return path.read_bytes()


class Plant:
    """A database with a line and two edges, and ingest on it. `restart` is a new process on the same disk."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder, self.clock, self.objects = folder, Clock(), MemoryObjects()
        self.limits = IngestSection(**{"chunk_bytes": 16_384, **limits})
        (folder / "cloud.db").write_bytes(_migrated())
        self.engine: Engine = open_engine(f"sqlite:///{folder / 'cloud.db'}")
        self.begin: Begin = transactions(self.engine)
        self.reads: Begin = reads(self.engine)
        self.reports: list[SignedReport] = []
        self.report_answer = True
        self.crash_at: str | None = None
        with self.begin() as session:
            session.add(Line(name="cells", title="Cells", classes=CLASSES, created_at=NOW))
            session.add(Line(name="other", title="Other", classes=CLASSES, created_at=NOW))
            session.flush()
            session.add(Edge(name="edge-1", line="cells", enrolled_at=NOW))
            session.add(Edge(name="edge-2", line="cells", enrolled_at=NOW))
        self.restart()

    def restart(self) -> None:
        self.landing = Landing(self.folder / "landing") if self.limits.landing_keep_s else None
        self.archive = Archive(
            begin=self.begin, objects=self.objects, now=self.clock, landing=self.landing, review=ReviewSection(),
            checkpoint=self._checkpoint,
        )  # fmt: skip
        self.files = StagingFiles(self.folder / "staging")
        self.uploads = Uploads(
            begin=self.begin, archive=self.archive, files=self.files, now=self.clock, limits=self.limits
        )
        self.dead = DeadLetters(begin=self.begin, now=self.clock, keep=self.limits.dead_letters)
        self.service = IngestService(
            uploads=self.uploads,
            records=Records(begin=self.begin, now=self.clock, on_report=self._on_report),
            presence=PresenceBook(begin=self.begin, now=self.clock),
            dead_letters=self.dead,
        )
        self.service.start()

    def send(self, kind: topics.UpKind, payload: bytes, edge: str = "edge-1") -> Ack | None:
        """One message up; the answer decoded."""
        reply: Reply | None = self.service.receive(topics.up(edge, kind), payload)
        if reply is None:
            return None
        assert reply.topic == topics.dn(edge, "ack")
        return decode(Ack, reply.payload)

    def upload(self, shot: Shot) -> str:
        """Offer and send everything; the last result."""
        answer = self.send("offer", offer(shot), shot.edge)
        assert answer is not None
        result = answer.items[0].result.value
        if result != "want":
            return result
        for chunk in shot.chunks(answer.items[0].chunk or 0):
            answer = self.send("data", chunk, shot.edge)
        assert answer is not None
        return answer.items[0].result.value

    def rows(self, table: type[Any]) -> list[Any]:
        with self.reads() as session:
            return list(session.query(table))

    def _on_report(self, report: SignedReport) -> bool:
        self.reports.append(report)
        return self.report_answer

    def _checkpoint(self, step: str) -> None:
        if step == self.crash_at:
            self.crash_at = None
            raise Crash(step)


class Crash(BaseException):
    """The process dies here: nothing may catch it."""


def when(us: int) -> datetime:
    return from_us(us)
