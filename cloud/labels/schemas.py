"""What labels take and give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.contracts.base import Text

Method = Literal["single", "bulk", "second", "imported"]
"""How a label came about. Metrics may leave ``bulk`` out: a wall of thumbnails is no careful look."""


class NewLabel(BaseModel):
    """A judgement: the name of one of the line's classes."""

    model_config = ConfigDict(extra="forbid")
    name: Text
    method: Method = "single"
    note: Text | None = None


class NewFlag(BaseModel):
    """Why a second person should look."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[Text, Field(min_length=1)]


class LabelView(BaseModel):
    """One row of a sample's history. `name` is absent on an undo; `counts` marks the one that holds now."""

    id: int
    sid: str
    name: str | None
    author: str
    method: str
    note: str | None
    queue: str
    labelled_at: int
    undoes: int | None
    counts: bool


class DescriptionView(BaseModel):
    """A sentence of a language model about a sample: its words, not a measurement. `release` decided, `base` spoke."""

    text: str
    language: str
    base: str
    release: int
    created_at: int


class TaskView(BaseModel):
    """A sample waiting for a label, with what a person needs to judge it."""

    sid: str
    image_url: str
    queue: str
    value: float
    serial: str
    camera: str
    captured_at: int
    predicted: str | None
    confidence: float | None
    defect_score: float | None
    verdict: str
    cannot_judge: str | None
    stratum: str
    release: int
    scores: dict[str, float]
    evidence: list[float] | None
    evidence_grid: list[int] | None
    evidence_roi: list[float] | None
    descriptions: list[DescriptionView]
    classes: list[dict[str, Any]]


class QueueView(BaseModel):
    """One page of the queue. `next` is the cursor of the next page, absent on the last; `open` counts per queue."""

    line: str
    open: dict[str, int]
    tasks: list[TaskView]
    next: str | None


class SampleView(BaseModel):
    """Everything about one sample."""

    sid: str
    line: str
    edge: str
    epoch: str
    seq: int
    captured_at: int
    stored_at: int
    sha256: str
    size: int
    type: str
    image_url: str
    pi_select: float
    pi_survive: float
    pi_label: float | None
    task: str | None
    label: str | None
    history: list[LabelView]
    descriptions: list[DescriptionView]
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CurrentLabel:
    """The label of a sample that counts now.

    `pi` is the inclusion probability of the estimation queue, ``pi_select * pi_survive * pi_label``; for the value
    queue, which never estimates, and for training weights use `pi_upload`, ``pi_select * pi_survive``.
    """

    sid: str
    name: str
    labelled_at: int
    author: str
    queue: str
    pi: float
    pi_upload: float
    method: str
    sha256: str
    label_id: int
