"""A plant for the dashboard's tests: a line that collapses and recovers over eight hours, and one with few labels."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from cloud import audit
from cloud.clock import from_us, to_us
from cloud.db.tables import (
    AggregateRow,
    BaseRow,
    Candidate,
    DeviceReportRow,
    Edge,
    Label,
    Line,
    LossRow,
    Release,
    Sample,
    Task,
)
from models.contracts.ids import uuid7

START = to_us(datetime(2026, 11, 24, 6, tzinfo=UTC))
HOUR = 3_600_000_000
HOURS = 8
NOW = START + HOURS * HOUR + 95_000_000
SHA = "5e" * 32
ACCURACY = [0.957, 0.949, 0.388, 0.512, 0.744, 0.838, 0.871, 0.894]
CLASSES = [
    {"name": "functional", "defect": False},
    {"name": "defective", "defect": True},
]
MORE_CLASSES = [
    {"name": "ok", "defect": False},
    {"name": "crack", "defect": True, "must_catch": True},
    {"name": "<b>scratch</b>", "defect": True},
]


def fill(session: Session, *, tasks: int = 12) -> None:
    """Write the whole plant."""
    rng = random.Random(7)
    _lines(session)
    session.flush()
    _boxes(session)
    _base(session)
    session.flush()
    for hour in range(HOURS):
        _aggregates(session, "cells", hour, rng)
        _samples(session, "cells", "edge-1", hour, rng, count=24, labelled=14)
    _aggregates(session, "modules", HOURS - 1, rng)
    _samples(session, "modules", "edge-4", HOURS - 1, rng, count=20, labelled=12)
    _queue(session, tasks, rng)
    _releases(session)
    _audit(session)
    session.add(LossRow(manifest=_sid(1, 1), edge="edge-3", epoch="e1", first=40, last=42, reason="evicted",
                        policy="full", declared_at=NOW))  # fmt: skip
    session.add(LossRow(manifest=_sid(1, 2), edge="edge-1", epoch="e1", first=7, last=8, reason="thinned",
                        policy="coin", declared_at=NOW))  # fmt: skip


def _lines(session: Session) -> None:
    session.add(Line(name="cells", title="Cells, hall 2", classes=CLASSES, escape_cost=38.0, overkill_cost=4.5,
                     currency="EUR", cameras=["cam-1"], created_at=START))  # fmt: skip
    session.add(Line(name="modules", title="Module lamination", classes=MORE_CLASSES, cameras=["cam-1"],
                     created_at=START))  # fmt: skip


def _boxes(session: Session) -> None:
    for name, line, online, state in (
        ("edge-1", "cells", True, "committed"),
        ("edge-2", "cells", True, "committed"),
        ("edge-3", "cells", False, "rolled_back"),
        ("edge-4", "modules", True, "idle"),
    ):
        beat = {
            "pending": {"n": 0 if online else 31, "bytes": 0 if online else 2_480_000, "oldest_age_s": 0},
            "rss_bytes": 287_000_000, "latency_p50_ms": 38.2, "latency_p99_ms": 61.0, "version": "0.1.0",
            "spool": "ok" if online else "degraded", "clock_ok": True, "dropped_frames": 0,
            "cameras": {"cam-1": {"state": "ok" if online else "silent", "frames": 9}},
        }  # fmt: skip
        session.add(Edge(name=name, line=line, enrolled_at=START, online=online, epoch="e1", heartbeat=beat,
                         seen_at=NOW - (4_000_000 if online else 1_260_000_000), release=5 if line == "cells" else 1,
                         update_state=state))  # fmt: skip
    session.add(Edge(name="edge-5", line="modules", enrolled_at=NOW, online=False, heartbeat={}))


def _base(session: Session) -> None:
    session.add(BaseRow(sha256=SHA, family="nano", version=1, manifest={}, checkpoint=SHA, created_at=START))


def _aggregates(session: Session, line: str, hour: int, rng: random.Random) -> None:
    start = START + hour * HOUR
    for number, edge in enumerate(("edge-1", "edge-2", "edge-3") if line == "cells" else ("edge-4",)):
        n = rng.randint(380, 420)
        rejected, unsure = int(n * 0.12), int(n * (0.03 if hour < 2 else 0.1))
        session.add(AggregateRow(
            manifest=_sid(hour, (100 if line == "cells" else 900) + number), cell=0, edge=edge, line=line,
            period=start // HOUR, period_start=start,
            period_end=start + HOUR, camera="cam-1", release=1 + hour // 2, product=None, predicted="functional", n=n,
            n_selected=n // 4, verdicts={"pass": n - rejected - unsure, "reject": rejected, "unsure": unsure},
            sum_g=0.9 * n, sum_g2=0.85 * n, sum_defect=0.1 * n, hist=[0] * 20,
        ))  # fmt: skip


def _sid(moment: int, number: int) -> str:
    return str(uuid7(START // 1000 + moment * 3_600_000 + number, number.to_bytes(10, "big")))


def _evidence(rng: random.Random) -> list[float]:
    x, y = rng.uniform(1, 6), rng.uniform(1, 6)
    return [round(math.exp(-((i % 7 - x) ** 2 + (i // 7 - y) ** 2) / 3), 3) for i in range(49)]


def _sample(line: str, edge: str, hour: int, number: int, rng: random.Random) -> Sample:
    predicted = "defective" if rng.random() < 0.4 else "functional"
    if line == "modules":
        predicted = rng.choice(["ok", "crack"])
    confidence = round(rng.uniform(0.52, 0.98), 3)
    at = START + hour * HOUR + number * 60_000_000
    return Sample(
        sid=_sid(hour, number if line == "cells" else 500 + number), edge=edge, epoch="e1",
        seq=hour * 1000 + number + 1, line=line, camera="cam-1", serial=f"C{hour:02d}-{number:05d}",
        captured_at=at, clock_ok=True,
        received_at=at + 1_000_000, stored_at=at + 2_000_000, sha256=f"{hour * 1000 + number:064x}", size=61_000,
        type="image/png", width=300, height=300, verdict="unsure" if confidence < 0.7 else "pass", predicted=predicted,
        confidence=confidence, defect_score=0.5, stratum="audit", pi_select=0.3, release=1, period=at // HOUR,
        meta={"evidence": _evidence(rng), "evidence_grid": [7, 7]}, meta_sha=SHA,
    )  # fmt: skip


def _samples(
    session: Session, line: str, edge: str, hour: int, rng: random.Random, *, count: int, labelled: int
) -> None:
    for number in range(count):
        sample = _sample(line, edge, hour, number, rng)
        session.add(sample)
        session.flush()
        done = number < labelled
        session.add(Task(sid=sample.sid, line=line, queue="estimate", pi_label=0.5, value=1.0,
                         state="labelled" if done else "skipped", created_at=sample.stored_at))  # fmt: skip
        if done:
            session.add(Label(sid=sample.sid, line=line, name=sample.predicted, author="anna", method="single",
                              queue="estimate", labelled_at=sample.stored_at + 1))  # fmt: skip


def _queue(session: Session, tasks: int, rng: random.Random) -> None:
    for number in range(tasks):
        sample = _sample("cells", "edge-2", HOURS - 1, 200 + number, rng)
        sample.stored_at = NOW - 40_000_000 + number * 1_000_000
        if number == 3:
            sample.meta = {}
        session.add(sample)
        session.flush()
        session.add(Task(sid=sample.sid, line="cells", queue="estimate" if number % 2 else "value", pi_label=0.5,
                         value=1.0 - number / 100, created_at=sample.stored_at))  # fmt: skip


def _manifest(line: str, release: int, at: int) -> dict[str, object]:
    blob = {"sha256": SHA, "length": 412_000}
    return {
        "line": line, "release": release, "model_version": f"2026.11.24+{release}", "base": SHA, "base_family": "nano",
        "head": {"kind": "linear", "classes": CLASSES, "blob": blob},
        "thresholds": {"pass_below": 0.3, "reject_above": 0.7, "call_at": 0.5}, "refs": blob,
        "golden": {"count": 4, "embedding_tolerance": 0.02, "prob_tolerance": 0.02},
        "lineage": {"training_run": f"run-{release}", "labels": 36 * release, "code_version": "0.1.0", "seed": 7,
                    "trained_at": from_us(at).isoformat().replace("+00:00", "Z")},
        "created_at": from_us(at).isoformat().replace("+00:00", "Z"),
    }  # fmt: skip


def _channel(line: str, number: int, at: int) -> dict[str, object]:
    target = {"path": "adapter/a.json", "sha256": SHA, "length": 900}
    return {"line": line, "channel": "stable", "release": number,
            "model_version": f"2026.11.24+{number}", "base": target, "adapter": target,
            "plan": {"salt": "s", "waves": [{"percent": 34}, {"percent": 100}], "wave": 1}, "actor": "gate",
            "created_at": from_us(at).isoformat().replace("+00:00", "Z")}  # fmt: skip


def report(*, accepted: bool, incumbent: int | None) -> dict[str, object]:
    """A gate report in the gate's own format."""
    sides = {"n": 240.0, "accuracy": 0.86, "balanced_accuracy": 0.871, "macro_f1": 0.85, "auroc": 0.931, "escape": 0.09,
             "overkill": 0.06, "unsure": 0.11, "calibration_error": 0.021}  # fmt: skip
    findings = [
        {"rule": "gate_set", "passed": True, "text": "240 gate images, 96 with a defect.", "numbers": {}},
        {"rule": "macro_f1", "passed": True, "text": "macro F1 changed by +5.10 pp, -1.00 pp allowed.", "numbers": {}},
        {"rule": "recall", "passed": accepted,
         "text": "functional: recall 91.2 % -> 78.0 % (120 images).", "numbers": {}},
        {"rule": "size", "passed": True, "text": "the release is 0.82 MB, 2.00 MB allowed (gate.release_bytes).",
         "numbers": {}},
    ]  # fmt: skip
    return {"schema": 1, "accepted": accepted, "summary": "", "findings": findings,
            "candidate": {"release": 9, "all": sides},
            "incumbent": incumbent and {"release": incumbent, "all": {**sides, "accuracy": 0.81}}}  # fmt: skip


def _releases(session: Session) -> None:
    spots = [(1, 0, None), (2, 3, None), (3, 4, None), (4, 5, None), (5, 7, 3)]
    for number, hour, rollback_of in spots:
        at = START + hour * HOUR + 600_000_000
        state = "running" if number == 5 else "superseded" if number < 4 else "complete"
        session.add(Release(line="cells", number=number, adapter_release=number, adapter_sha=SHA, wave=1,
                            rollback_of=rollback_of, state=state, wave_opened_at=at, actor="gate",
                            reason="the hour's training" if rollback_of is None else "overkill rose on shift B",
                            manifest=_channel("cells", number, at), created_at=at,
                            live_at=None if number == 5 else at + 240_000_000))  # fmt: skip
    states = {
        1: "published",
        2: "published",
        3: "published",
        4: "published",
        5: "published",
        6: "refused",
        7: "trained",
    }
    for release, state in states.items():
        at = START + min(release, 7) * HOUR
        found = {} if state == "trained" else report(accepted=state != "refused", incumbent=release - 1 or None)
        session.add(Candidate(line="cells", release=release, model_version=f"2026.11.24+{release}", state=state,
                              manifest=_manifest("cells", release, at), manifest_sha=SHA, base_sha=SHA,
                              parent=release - 1 or None, report=found, created_at=at,
                              decided_at=None if state == "trained" else at + 9_000_000))  # fmt: skip
    session.add(DeviceReportRow(edge="edge-3", line="cells", counter=9, state="rolled_back", release=4, attempted=5,
                                loaded=SHA, reason="probation_failed", report={}, received_at=NOW))  # fmt: skip


def _audit(session: Session) -> None:
    for number in range(60):
        audit.record(session, at=START + number * 60_000_000, actor="anna" if number % 3 else "gate",
                     action="label.added" if number % 3 else "release.published", subject="cells",
                     reason="overkill rose on shift B" if number == 59 else None,
                     evidence={"sid": _sid(0, number)[:13], "name": "<script>alert(1)</script>"})  # fmt: skip
