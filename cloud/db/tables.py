"""Every table of the cloud.

Rules: times are UTC microseconds since 1970 as integers (ordered, the same on both databases); image bytes never
enter a table; history is appended, never overwritten; a row that another refers to is never deleted, but states
move one way.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = JSON().with_variant(JSONB(), "postgresql")
BigId = BigInteger().with_variant(Integer(), "sqlite")


class Table(DeclarativeBase):
    """Base of all tables. Names of constraints are fixed, so migrations can name them."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: Json, list[Any]: Json, str: String(256)}


Table.metadata.naming_convention = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Line(Table):
    """A product line: its classes, costs and cameras. One model per line."""

    __tablename__ = "lines"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    title: Mapped[str]
    classes: Mapped[list[Any]]
    escape_cost: Mapped[float] = mapped_column(default=0.0)
    overkill_cost: Mapped[float] = mapped_column(default=0.0)
    currency: Mapped[str] = mapped_column(String(8), default="EUR")
    cameras: Mapped[list[Any]] = mapped_column(default=list)
    hour_s: Mapped[float] = mapped_column(default=3600.0)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Edge(Table):
    """A box. `report_counter` is the highest seen in a valid signed report: a replay is not above it."""

    __tablename__ = "edges"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"), index=True)
    certificate: Mapped[str | None] = mapped_column(Text)
    enrolled_at: Mapped[int] = mapped_column(BigInteger)
    online: Mapped[bool] = mapped_column(default=False)
    seen_at: Mapped[int | None] = mapped_column(BigInteger)
    epoch: Mapped[str | None] = mapped_column(String(16))
    heartbeat: Mapped[dict[str, Any]] = mapped_column(default=dict)
    release: Mapped[int] = mapped_column(default=0)
    update_state: Mapped[str] = mapped_column(String(32), default="idle")
    report_counter: Mapped[int] = mapped_column(BigInteger, default=0)


class Sample(Table):
    """One stored sample. The object is durable before the row exists. `meta` is the envelope as received."""

    __tablename__ = "samples"
    __table_args__ = (
        UniqueConstraint("edge", "epoch", "seq"),
        Index("ix_samples_line_stored_at", "line", "stored_at"),
        Index("ix_samples_line_period", "line", "period"),
        Index("ix_samples_line_release", "line", "release", "captured_at"),
        Index("ix_samples_serial", "line", "serial"),
    )
    sid: Mapped[str] = mapped_column(String(36), primary_key=True)
    edge: Mapped[str] = mapped_column(ForeignKey("edges.name"))
    epoch: Mapped[str] = mapped_column(String(16))
    seq: Mapped[int] = mapped_column(BigInteger)
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"))
    camera: Mapped[str] = mapped_column(String(64))
    serial: Mapped[str]
    lot: Mapped[str | None]
    product: Mapped[str | None]
    captured_at: Mapped[int] = mapped_column(BigInteger)
    clock_ok: Mapped[bool]
    received_at: Mapped[int] = mapped_column(BigInteger)
    stored_at: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    type: Mapped[str] = mapped_column(String(64))
    width: Mapped[int | None]
    height: Mapped[int | None]
    verdict: Mapped[str] = mapped_column(String(8))
    predicted: Mapped[str | None]
    confidence: Mapped[float | None]
    defect_score: Mapped[float | None]
    stratum: Mapped[str] = mapped_column(String(16))
    pi_select: Mapped[float]
    pi_survive: Mapped[float] = mapped_column(default=1.0)
    release: Mapped[int]
    period: Mapped[int] = mapped_column(default=0)
    meta: Mapped[dict[str, Any]]
    meta_sha: Mapped[str] = mapped_column(String(64))
    landed: Mapped[bool] = mapped_column(default=False)


class Staging(Table):
    """An upload under way. The bytes lie in the staging folder under the sid; lost bytes are simply sent again."""

    __tablename__ = "staging"
    sid: Mapped[str] = mapped_column(String(36), primary_key=True)
    edge: Mapped[str] = mapped_column(String(64), index=True)
    epoch: Mapped[str] = mapped_column(String(16))
    offer: Mapped[dict[str, Any]]
    chunk: Mapped[int]
    held: Mapped[str] = mapped_column(Text)
    offered_at: Mapped[int] = mapped_column(BigInteger, index=True)


class LossRow(Table):
    """A declared range of sequence numbers that will never be stored."""

    __tablename__ = "losses"
    __table_args__ = (Index("ix_losses_edge_epoch", "edge", "epoch"), UniqueConstraint("manifest", "first"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    manifest: Mapped[str] = mapped_column(String(36))
    edge: Mapped[str] = mapped_column(ForeignKey("edges.name"))
    epoch: Mapped[str] = mapped_column(String(16))
    first: Mapped[int] = mapped_column(BigInteger)
    last: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(String(32))
    policy: Mapped[str | None]
    declared_at: Mapped[int] = mapped_column(BigInteger)


class AggregateRow(Table):
    """One cell of an hourly aggregate over all parts."""

    __tablename__ = "aggregates"
    __table_args__ = (UniqueConstraint("manifest", "cell"), Index("ix_aggregates_line_period", "line", "period"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    manifest: Mapped[str] = mapped_column(String(36))
    cell: Mapped[int]
    edge: Mapped[str] = mapped_column(ForeignKey("edges.name"))
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"))
    period: Mapped[int]
    period_start: Mapped[int] = mapped_column(BigInteger)
    period_end: Mapped[int] = mapped_column(BigInteger)
    camera: Mapped[str] = mapped_column(String(64))
    release: Mapped[int]
    product: Mapped[str | None]
    predicted: Mapped[str | None]
    n: Mapped[int]
    n_selected: Mapped[int]
    verdicts: Mapped[dict[str, Any]]
    sum_g: Mapped[float]
    sum_g2: Mapped[float]
    sum_defect: Mapped[float]
    hist: Mapped[list[Any]]


class FlagRow(Table):
    """An operator's "this one was wrong"."""

    __tablename__ = "flags"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    edge: Mapped[str] = mapped_column(ForeignKey("edges.name"))
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"))
    sid: Mapped[str | None] = mapped_column(String(36), index=True)
    serial: Mapped[str | None]
    reason: Mapped[str]
    claimed: Mapped[str | None]
    flagged_at: Mapped[int] = mapped_column(BigInteger)


class DeadLetter(Table):
    """A message that could not be taken, kept so that a person can look and replay. At most 64 kB of it."""

    __tablename__ = "dead_letters"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, index=True)
    topic: Mapped[str]
    edge: Mapped[str | None] = mapped_column(String(64))
    code: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)
    payload: Mapped[bytes] = mapped_column(LargeBinary)


class Task(Table):
    """One sample waiting for a label. `pi_label` is the probability with which a sample like it was put into the
    estimation queue; only that queue estimates, both train.
    """

    __tablename__ = "tasks"
    __table_args__ = (Index("ix_tasks_queue", "line", "state", "queue", "value"),)
    sid: Mapped[str] = mapped_column(ForeignKey("samples.sid"), primary_key=True)
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"))
    queue: Mapped[str] = mapped_column(String(16))
    pi_label: Mapped[float]
    value: Mapped[float]
    state: Mapped[str] = mapped_column(String(16), default="open")
    gold: Mapped[str | None]
    created_at: Mapped[int] = mapped_column(BigInteger)
    closed_at: Mapped[int | None] = mapped_column(BigInteger)


class Description(Table):
    """What a base's language model said of a sample, in one language: words, never a measurement. `text` is None where
    nothing may be shown, with the reason in `dropped`. `release` is the one whose decision was described.
    """

    __tablename__ = "descriptions"
    sid: Mapped[str] = mapped_column(ForeignKey("samples.sid"), primary_key=True)
    language: Mapped[str] = mapped_column(String(8), primary_key=True)
    text: Mapped[str | None] = mapped_column(Text)
    dropped: Mapped[str | None] = mapped_column(String(32))
    base_sha: Mapped[str] = mapped_column(ForeignKey("bases.sha256"))
    release: Mapped[int]
    created_at: Mapped[int] = mapped_column(BigInteger)


class Label(Table):
    """One judgement of one person. The newest that is not undone counts; the others are history."""

    __tablename__ = "labels"
    __table_args__ = (Index("ix_labels_sid_id", "sid", "id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    sid: Mapped[str] = mapped_column(ForeignKey("samples.sid"))
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"), index=True)
    name: Mapped[str | None]
    author: Mapped[str]
    method: Mapped[str] = mapped_column(String(16))
    note: Mapped[str | None]
    queue: Mapped[str] = mapped_column(String(16))
    labelled_at: Mapped[int] = mapped_column(BigInteger, index=True)
    undoes: Mapped[int | None] = mapped_column(BigInteger)


class Job(Table):
    """Work for a worker process. A worker holds a lease and renews it; a dead worker's job is taken over."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_state_kind", "state", "kind", "not_before"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(unique=True)
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), default="ready")
    not_before: Mapped[int] = mapped_column(BigInteger, default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None]
    lease_until: Mapped[int | None] = mapped_column(BigInteger)
    progress: Mapped[float] = mapped_column(default=0.0)
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)


class Snapshot(Table):
    """A frozen set of labels, named by digest. Its content (sids, labels, weights) is an object in the store."""

    __tablename__ = "snapshots"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"))
    labels: Mapped[int]
    as_of: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)


class BaseRow(Table):
    """A frozen base. Its graphs and the checkpoint that adapters are trained on are blobs in the object store; so are
    the tokenizer and the language head of one that can word what it sees (no head: it is the embedding table).
    """

    __tablename__ = "bases"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    family: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    manifest: Mapped[dict[str, Any]]
    checkpoint: Mapped[str] = mapped_column(String(64))
    tokenizer: Mapped[str | None] = mapped_column(String(64))
    language_head: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)


class Reference(Table):
    """A labelled image that came with the line, not from a camera. `purpose` is ``gate`` (judges releases, never
    trained on) or ``memory`` (replayed in training). `domain` is the product or cell type, `group` the unit that
    must stay in one set. The image is a blob in the object store.
    """

    __tablename__ = "reference_images"
    __table_args__ = (
        UniqueConstraint("line", "purpose", "sha256"),
        Index("ix_reference_images_line_purpose", "line", "purpose"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"))
    purpose: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64))
    label: Mapped[str]
    domain: Mapped[str | None]
    group: Mapped[str | None]
    must_catch: Mapped[bool] = mapped_column(default=False)
    active_from: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Candidate(Table):
    """An adapter release and the gate's word on it. States: trained -> accepted | refused; accepted -> published ->
    revoked. A refused one keeps its report for ever.
    """

    __tablename__ = "candidates"
    __table_args__ = (UniqueConstraint("line", "release"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"))
    release: Mapped[int]
    model_version: Mapped[str]
    state: Mapped[str] = mapped_column(String(16), index=True)
    manifest: Mapped[dict[str, Any]]
    manifest_sha: Mapped[str] = mapped_column(String(64))
    base_sha: Mapped[str] = mapped_column(ForeignKey("bases.sha256"))
    proposal: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    snapshot: Mapped[str | None] = mapped_column(String(64))
    parent: Mapped[int | None]
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[int] = mapped_column(BigInteger)
    decided_at: Mapped[int | None] = mapped_column(BigInteger)


class Release(Table):
    """A channel release and its rollout. `manifest` is the channel manifest last signed for it.

    States: running -> complete | aborted | superseded; a paused rollout is running with plan.state paused.
    """

    __tablename__ = "releases"
    __table_args__ = (UniqueConstraint("line", "number"), Index("ix_releases_line_state", "line", "state"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"))
    number: Mapped[int]
    adapter_release: Mapped[int]
    adapter_sha: Mapped[str] = mapped_column(String(64))
    rollback_of: Mapped[int | None]
    state: Mapped[str] = mapped_column(String(16))
    wave: Mapped[int] = mapped_column(default=0)
    wave_opened_at: Mapped[int] = mapped_column(BigInteger)
    manifest: Mapped[dict[str, Any]]
    actor: Mapped[str]
    reason: Mapped[str | None]
    created_at: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)
    live_at: Mapped[int | None] = mapped_column(BigInteger)


class DeviceReportRow(Table):
    """A verified signed report. Totals of a rollout are counted from these, newest counter per edge and release."""

    __tablename__ = "device_reports"
    __table_args__ = (UniqueConstraint("edge", "counter"), Index("ix_device_reports_line_release", "line", "release"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    edge: Mapped[str] = mapped_column(ForeignKey("edges.name"))
    line: Mapped[str] = mapped_column(ForeignKey("lines.name"))
    counter: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    release: Mapped[int]
    attempted: Mapped[int | None]
    loaded: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(String(32))
    report: Mapped[dict[str, Any]]
    received_at: Mapped[int] = mapped_column(BigInteger)


class Outbox(Table):
    """A message to send after the commit that caused it."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    topic: Mapped[str]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    retain: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Audit(Table):
    """Append-only and hash-chained: ``sha256 = SHA-256(previous || canonical JSON of the other columns)``."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, index=True)
    actor: Mapped[str]
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str]
    reason: Mapped[str | None] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]]
    previous: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
