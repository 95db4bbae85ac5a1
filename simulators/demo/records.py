"""What the cloud wrote down, as plain rows: uploads, labels, releases, reports, candidates. Read-only.

Times come out as unix seconds. The accuracy estimate and the conservation audit are not computed here: they are asked
for over HTTP, as any operator would, so that what the table shows is what the dashboard shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud.db.session import Begin
from cloud.db.tables import Candidate, DeviceReportRow, Label, Release, Sample, Snapshot

MICRO = 1e6


@dataclass(frozen=True, slots=True)
class Upload:
    sid: str
    serial: str
    edge: str
    stored_at: float


@dataclass(frozen=True, slots=True)
class Given:
    """A label that counts: the newest of its sample that was not undone."""

    sid: str
    serial: str
    name: str
    author: str
    queue: str
    at: float


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter release and the gate's word. `as_of` is when its labels were frozen; None for the starting release."""

    release: int
    state: str
    as_of: float | None
    labels: int
    bytes: int
    decided_at: float | None
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rolled:
    """A channel release."""

    number: int
    adapter_release: int
    adapter_sha: str
    state: str
    created_at: float
    live_at: float | None


@dataclass(frozen=True, slots=True)
class Told:
    """One verified report of a box. `loaded` is the digest of what it really runs."""

    edge: str
    state: str
    release: int
    loaded: str | None
    reason: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Records:
    """Everything about one line, each list in order of time."""

    uploads: Sequence[Upload]
    labels: Sequence[Given]
    trained: Sequence[Trained]
    rolled: Sequence[Rolled]
    told: Sequence[Told]


def read_records(reads: Begin, line: str) -> Records:
    """One consistent look at the database."""
    with reads() as session:
        return Records(
            uploads=_uploads(session, line),
            labels=_labels(session, line),
            trained=_trained(session, line),
            rolled=[
                Rolled(
                    number=row.number,
                    adapter_release=row.adapter_release,
                    adapter_sha=row.adapter_sha,
                    state=row.state,
                    created_at=row.created_at / MICRO,
                    live_at=None if row.live_at is None else row.live_at / MICRO,
                )
                for row in session.scalars(select(Release).where(Release.line == line).order_by(Release.number))
            ],
            told=_told(session, line),
        )


def _uploads(session: Session, line: str) -> list[Upload]:
    rows = session.scalars(select(Sample).where(Sample.line == line).order_by(Sample.stored_at))
    return [Upload(sid=row.sid, serial=row.serial, edge=row.edge, stored_at=row.stored_at / MICRO) for row in rows]


def _labels(session: Session, line: str) -> list[Given]:
    query = (
        select(Label, Sample.serial).join(Sample, Sample.sid == Label.sid).where(Label.line == line).order_by(Label.id)
    )
    rows = session.execute(query).all()
    undone = {row.undoes for row, _ in rows if row.undoes is not None}
    current: dict[str, Given] = {}
    for row, serial in rows:
        if row.name is not None and row.id not in undone:
            current[row.sid] = Given(row.sid, serial, row.name, row.author, row.queue, row.labelled_at / MICRO)
    return sorted(current.values(), key=lambda given: given.at)


def _trained(session: Session, line: str) -> list[Trained]:
    query = (
        select(Candidate, Snapshot.as_of, Snapshot.labels)
        .outerjoin(Snapshot, Snapshot.sha256 == Candidate.snapshot)
        .where(Candidate.line == line)
        .order_by(Candidate.release)
    )
    return [
        Trained(
            release=row.release,
            state=row.state,
            as_of=None if as_of is None else as_of / MICRO,
            labels=labels or 0,
            bytes=_bytes(row.manifest),
            decided_at=None if row.decided_at is None else row.decided_at / MICRO,
            report=row.report,
        )
        for row, as_of, labels in session.execute(query)
    ]


def _bytes(manifest: dict[str, Any]) -> int:
    """What travels for one adapter release beside its manifest: LoRA weights, head, references."""
    adapter = manifest.get("adapter")
    blobs = [manifest["head"]["blob"], manifest["refs"], *([adapter["blob"]] if adapter else [])]
    return sum(int(blob["length"]) for blob in blobs)


def _told(session: Session, line: str) -> list[Told]:
    query = select(DeviceReportRow).where(DeviceReportRow.line == line).order_by(DeviceReportRow.id)
    return [
        Told(
            edge=row.edge,
            state=row.state,
            release=row.release,
            loaded=row.loaded,
            reason=row.reason,
            at=row.received_at / MICRO,
        )
        for row in session.scalars(query)
    ]


class CloudApi:
    """The questions the demo asks as a viewer."""

    def __init__(self, url: str, *, token: str, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=10.0, transport=transport)

    def healthy(self) -> bool:
        """Whether the server answers."""
        try:
            return self._http.get("/api/v1/health").is_success
        except httpx.TransportError:
            return False

    def accuracy(self, line: str) -> Any:
        """Estimates by period."""
        return self._json(f"/api/v1/lines/{line}/accuracy", by="period")

    def conservation(self, line: str) -> Any:
        """Whether every sample is accounted for."""
        return self._json(f"/api/v1/lines/{line}/conservation")

    def fleet(self) -> Any:
        """Every box with its newest heartbeat."""
        return self._json("/api/v1/fleet")

    def open_tasks(self, line: str) -> int:
        """Samples that wait for a label."""
        return sum(self._json(f"/api/v1/lines/{line}/queue", limit=1)["open"].values())

    def busy(self, line: str) -> bool:
        """Whether a training, a gate or a rollout is under way."""
        jobs = self._json(f"/api/v1/lines/{line}/jobs")
        releases = self._json(f"/api/v1/lines/{line}/releases")
        return _any_state(jobs, {"ready", "leased", "running"}) or _any_state(releases, {"running"})

    def close(self) -> None:
        self._http.close()

    def _json(self, path: str, **query: Any) -> Any:
        answer = self._http.get(path, params=query)
        answer.raise_for_status()
        return answer.json()


def _any_state(document: Any, states: set[str]) -> bool:
    rows = document if isinstance(document, list) else next(v for v in document.values() if isinstance(v, list))
    return any(row["state"] in states for row in rows)
