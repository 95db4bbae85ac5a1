"""Samples, tasks, labels and aggregates written straight into a plant's database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cloud.db.tables import AggregateRow, Label, Sample, Task
from models.contracts.ids import uuid7
from tests.cloud.kit import EPOCH, NOW, Plant

PERIOD = NOW // 3_600_000_000


@dataclass
class Book:
    """Writes rows; every sample has its own number."""

    plant: Plant
    number: int = 0

    def sample(
        self,
        name: str | None = None,
        *,
        predicted: str | None = "good",
        score: float | None = 0.1,
        queue: str = "estimate",
        gold: str | None = None,
        method: str = "single",
        **columns: Any,
    ) -> str:
        """One stored sample with its task and, with a `name`, its label; its sid."""
        self.number += 1
        sid = str(UUID(str(uuid7(NOW // 1000, self.number.to_bytes(10, "big")))))
        row: dict[str, Any] = {
            "sid": sid, "edge": "edge-1", "epoch": EPOCH, "seq": self.number, "line": "cells", "camera": "cam-1",
            "serial": f"P{self.number}", "captured_at": NOW, "clock_ok": True, "received_at": NOW, "stored_at": NOW,
            "sha256": "a" * 64, "size": 10, "type": "image/png", "verdict": "pass", "predicted": predicted,
            "confidence": 0.9, "defect_score": score, "stratum": "hard", "pi_select": 0.5, "pi_survive": 0.5,
            "release": 1, "period": PERIOD, "meta": {}, "meta_sha": "b" * 64,
        }  # fmt: skip
        with self.plant.begin() as session:
            session.add(Sample(**row | columns))
            session.flush()
            state = "open" if name is None else "done"
            session.add(
                Task(
                    sid=sid, line="cells", queue=queue, pi_label=0.4, value=0.5, state=state, gold=gold, created_at=NOW
                )
            )
        if name is not None:
            self.label(sid, name, queue=queue, method=method)
        return sid

    def label(self, sid: str, name: str, *, queue: str = "estimate", method: str = "single", at: int = NOW) -> int:
        with self.plant.begin() as session:
            row = Label(sid=sid, line="cells", name=name, author="ann", method=method, queue=queue, labelled_at=at)
            session.add(row)
            session.flush()
            return row.id

    def undo(self, sid: str, label: int, *, at: int = NOW) -> None:
        with self.plant.begin() as session:
            session.add(
                Label(sid=sid, line="cells", name=None, author="ann", method="single", queue="estimate",
                      labelled_at=at, undoes=label)
            )  # fmt: skip

    def aggregate(
        self, n: int, *, sum_g: float, predicted: str | None = "good", edge: str = "edge-1", **columns: Any
    ) -> None:
        self.number += 1
        row: dict[str, Any] = {
            "manifest": f"{self.number:036d}", "cell": 0, "edge": edge, "line": "cells", "period": PERIOD,
            "period_start": PERIOD * 3_600_000_000, "period_end": (PERIOD + 1) * 3_600_000_000, "camera": "cam-1",
            "release": 1, "predicted": predicted, "n": n, "n_selected": 0, "verdicts": {}, "sum_g": sum_g,
            "sum_g2": 0.0, "sum_defect": 0.0, "hist": [],
        }  # fmt: skip
        with self.plant.begin() as session:
            session.add(AggregateRow(**row | columns))
