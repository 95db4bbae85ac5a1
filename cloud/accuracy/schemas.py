"""What the accuracy service answers. Times are UTC microseconds; shares are 0..1."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

Status = Literal["ok", "not_enough_labels", "reviewers_unreliable"]


class Share(BaseModel):
    """A share with its 95 % interval; `labels` the labels it rests on, `effective` what they are worth."""

    value: float
    low: float
    high: float
    labels: int
    effective: float | None
    method: str


class AccuracyRow(BaseModel):
    """One period (`period` set) or one release (`release` set).

    `n_parts` all inspected parts by the aggregates, `judged` those with scores, `unreported` boxes that sent samples
    but no aggregate yet: then totals are incomplete and are not used. `labels` counts random (estimation queue) labels
    of judged parts, `waiting` random samples nobody has labelled yet. `naive` is the plain mean over every labelled
    upload, kept beside the estimate to show what it would have claimed. `corrected` says whether reviewer mistakes were
    taken out, at `mistake_rate` found on `gold` items. `escape` is a share of the defective parts and `overkill` of the
    good ones; `escaped` and `overkilled` are the same parts as shares of ALL parts: times `n_parts` they are parts, and
    with the line's costs money.
    """

    period: int | None = None
    release: int | None = None
    starts_at: int | None = None
    n_parts: int
    judged: int
    uploaded: int
    labels: int
    waiting: int
    needed: int
    status: Status
    accuracy: Share | None = None
    escape: Share | None = None
    overkill: Share | None = None
    escaped: Share | None = None
    overkilled: Share | None = None
    naive: float | None = None
    method: str | None = None
    corrected: bool = False
    mistake_rate: float | None = None
    gold: int = 0
    unreported: list[str] = []
    as_of: int
    last_label_at: int | None = None
