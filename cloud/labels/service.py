"""Labelling. Each call is one transaction; what the caller did wrong is a `Problem` that says what to do next."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

from sqlalchemy.orm import Session

from cloud import audit
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Description, FlagRow, Label, Line, Sample, Task
from cloud.http import Problem, not_found
from cloud.labels import repository
from cloud.labels.repository import Cursor
from cloud.labels.schemas import CurrentLabel, DescriptionView, LabelView, QueueView, SampleView, TaskView
from models.contracts.ids import uuid7

ESTIMATE = "estimate"


class LabelService:
    """See the module."""

    def __init__(self, *, begin: Begin, reads: Begin, now: NowUs) -> None:
        self._begin, self._reads, self._now = begin, reads, now

    def queue(self, line: str, limit: int = 50, after: str | None = None) -> QueueView:
        """Open tasks in the order they should be judged.

        Args:
            after: the `next` of the page before.

        Raises:
            Problem: 404 for an unknown line, 422 for a broken cursor.
        """
        with self._reads() as session:
            row = _line(session, line)
            found = repository.open_tasks(session, line, limit + 1, _read_cursor(after))
            page = found[:limit]
            cursor = _cursor(page[-1][0]) if len(found) > limit else None
            said = repository.descriptions(session, [task.sid for task, _ in page])
            tasks = [_task_view(task, sample, row, said[task.sid]) for task, sample in page]
            return QueueView(line=line, open=repository.open_counts(session, line), tasks=tasks, next=cursor)

    def label(self, sid: str, name: str, author: str, method: str = "single", note: str | None = None) -> LabelView:
        """Judge a sample. A second label is a correction: the newest counts, the others stay.

        Raises:
            Problem: 404 for an unknown sample, 422 when the line has no class `name`.
        """
        with self._begin() as session:
            sample, task = _sample(session, sid), session.get(Task, sid)
            known = [str(spec["name"]) for spec in session.get_one(Line, sample.line).classes]
            if name not in known:
                listed = ", ".join(known)
                raise Problem(
                    422,
                    "unknown_class",
                    f"Line {sample.line!r} has no class {name!r}; it has: {listed}.",
                    classes=known,
                )
            label = self._append(session, sample, task, author=author, method=method, name=name, note=note)
            if task is not None and task.state != "labelled":
                task.state, task.closed_at = "labelled", self._now()
            return _label_view(label, counts=True)

    def undo(self, label_id: int, author: str) -> LabelView:
        """Take one's own label back. The label before it counts again; without one the task is open again.

        Raises:
            Problem: 404 for an unknown label, 403 for another person's, 409 when it is undone already.
        """
        with self._begin() as session:
            label = session.get(Label, label_id)
            if label is None or label.undoes is not None:
                raise not_found("label", str(label_id))
            if label.author != author:
                raise Problem(403, "not_yours", f"Label {label_id} is by {label.author}: correct it with a new label.")
            rows = repository.history(session, label.sid)
            if any(row.undoes == label_id for row in rows):
                raise Problem(409, "already_undone", f"Label {label_id} is undone already.")
            sample, task = _sample(session, label.sid), session.get(Task, label.sid)
            undo = self._append(session, sample, task, author=author, method=label.method, undoes=label_id)
            if task is not None and repository.counts_now([*rows, undo]) is None:
                task.state, task.closed_at = "open", None
            return _label_view(undo, counts=False)

    def skip(self, sid: str, author: str) -> str:
        """Leave a sample to nobody: its task closes without a label. A label may still come later.

        Raises:
            Problem: 404 for an unknown sample, 409 when its task is not open.
        """
        with self._begin() as session:
            sample, task = _sample(session, sid), session.get(Task, sid)
            if task is None or task.state != "open":
                state = task.state if task is not None else "missing"
                raise Problem(409, "not_open", f"The task of sample {sid} is {state}; only an open one can be skipped.")
            task.state, task.closed_at = "skipped", self._now()
            audit.record(
                session, at=self._now(), actor=author, action="sample_skipped", subject=sid,
                evidence={"line": sample.line, "queue": task.queue},
            )  # fmt: skip
            return task.state

    def flag(self, sid: str, author: str, reason: str) -> str:
        """Ask for a second look; returns the flag's id.

        Raises:
            Problem: 404 for an unknown sample.
        """
        with self._begin() as session:
            sample = _sample(session, sid)
            identity = str(uuid7(self._now() // 1000, secrets.token_bytes(10)))
            session.add(
                FlagRow(
                    id=identity,
                    edge=sample.edge,
                    line=sample.line,
                    sid=sid,
                    serial=sample.serial,
                    reason=f"{author}: {reason}"[:256],
                    claimed=None,
                    flagged_at=self._now(),
                )
            )
            audit.record(session, at=self._now(), actor=author, action="sample_flagged", subject=sid, reason=reason)
            return identity

    def current(self, line: str, as_of: int | None = None) -> list[CurrentLabel]:
        """The labels of a line that count, now or as they stood at `as_of` microseconds.

        Raises:
            Problem: 404 for an unknown line.
        """
        with self._reads() as session:
            _line(session, line)
            return [_current(*found) for found in repository.current(session, line, as_of)]

    def sample(self, sid: str) -> SampleView:
        """A sample with its envelope, task and history.

        Raises:
            Problem: 404.
        """
        with self._reads() as session:
            sample, task = _sample(session, sid), session.get(Task, sid)
            rows = repository.history(session, sid)
            counting = repository.counts_now(rows)
            return SampleView(
                sid=sid, line=sample.line, edge=sample.edge, epoch=sample.epoch, seq=sample.seq,
                captured_at=sample.captured_at, stored_at=sample.stored_at, sha256=sample.sha256, size=sample.size,
                type=sample.type, image_url=image_url(sid), pi_select=sample.pi_select, pi_survive=sample.pi_survive,
                pi_label=task.pi_label if task else None, task=task.state if task else None,
                label=counting.name if counting else None,
                history=[_label_view(row, counts=row is counting) for row in rows],
                descriptions=_descriptions(repository.descriptions(session, [sid])[sid]), meta=sample.meta,
            )  # fmt: skip

    def image(self, sid: str) -> tuple[str, str]:
        """Digest and media type of a sample's image.

        Raises:
            Problem: 404.
        """
        with self._reads() as session:
            sample = _sample(session, sid)
            return sample.sha256, sample.type

    def _append(
        self,
        session: Session,
        sample: Sample,
        task: Task | None,
        *,
        author: str,
        method: str,
        name: str | None = None,
        note: str | None = None,
        undoes: int | None = None,
    ) -> Label:
        label = Label(
            sid=sample.sid, line=sample.line, name=name, author=author, method=method, note=note,
            queue=task.queue if task else "value", labelled_at=self._now(), undoes=undoes,
        )  # fmt: skip
        session.add(label)
        session.flush()
        return label


def image_url(sid: str) -> str:
    """Where a browser gets a sample's image."""
    return f"/api/v1/samples/{sid}/image"


def _line(session: Session, name: str) -> Line:
    row = session.get(Line, name)
    if row is None:
        raise not_found("line", name)
    return row


def _sample(session: Session, sid: str) -> Sample:
    row = session.get(Sample, sid)
    if row is None:
        raise not_found("sample", sid[:64])
    return row


def _cursor(task: Task) -> str:
    return base64.urlsafe_b64encode(json.dumps([task.queue, task.value, task.sid]).encode()).decode()


def _read_cursor(text: str | None) -> Cursor | None:
    if text is None:
        return None
    try:
        queue, value, sid = json.loads(base64.urlsafe_b64decode(text.encode()))
        return Cursor(str(queue), float(value), str(sid))
    except (ValueError, TypeError) as fault:
        raise Problem(422, "bad_cursor", "This is no cursor of the queue: leave `after` out to begin.") from fault


def _label_view(label: Label, *, counts: bool) -> LabelView:
    return LabelView(
        id=label.id, sid=label.sid, name=label.name, author=label.author, method=label.method, note=label.note,
        queue=label.queue, labelled_at=label.labelled_at, undoes=label.undoes, counts=counts,
    )  # fmt: skip


def _current(label: Label, sample: Sample, task: Task | None) -> CurrentLabel:
    upload = sample.pi_select * sample.pi_survive
    estimates = task is not None and task.queue == ESTIMATE
    return CurrentLabel(
        sid=sample.sid, name=label.name or "", labelled_at=label.labelled_at, author=label.author, queue=label.queue,
        pi=upload * task.pi_label if task is not None and estimates else upload, pi_upload=upload,
        method=label.method, sha256=sample.sha256, label_id=label.id,
    )  # fmt: skip


def _descriptions(rows: list[Description]) -> list[DescriptionView]:
    return [
        DescriptionView(
            text=row.text or "", language=row.language, base=row.base_sha, release=row.release,
            created_at=row.created_at,
        )
        for row in rows
    ]  # fmt: skip


def _task_view(task: Task, sample: Sample, line: Line, said: list[Description]) -> TaskView:
    decision: dict[str, Any] = sample.meta.get("decision", {})
    return TaskView(
        sid=sample.sid, image_url=image_url(sample.sid), queue=task.queue, value=task.value, serial=sample.serial,
        camera=sample.camera, captured_at=sample.captured_at, predicted=sample.predicted,
        confidence=sample.confidence, defect_score=sample.defect_score, verdict=sample.verdict,
        cannot_judge=decision.get("cannot_judge"), stratum=sample.stratum, release=sample.release,
        scores=decision.get("scores", {}), evidence=sample.meta.get("evidence"),
        evidence_grid=sample.meta.get("evidence_grid"), evidence_roi=sample.meta.get("evidence_roi"),
        descriptions=_descriptions(said), classes=line.classes,
    )  # fmt: skip
