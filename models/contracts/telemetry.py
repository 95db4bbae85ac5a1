"""What an edge tells about itself: heartbeat, presence, hourly aggregates over ALL parts, operator flags.

Aggregates cover every inspected part, uploaded or not. They are what turns a biased sample of uploads into an
unbiased estimate of field accuracy (the difference estimator's first term), so they are acknowledged and
counted like samples.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.contracts.base import Count, Epoch, Finite, Identifier, Message, Probability, Text, Timestamp
from models.contracts.ids import Sid
from models.contracts.sample import Verdict

HISTOGRAM_BINS = 20


class Pending(Message):
    n: Count
    bytes: Count
    oldest_age_s: Finite


class CameraHealth(Message):
    state: Literal["ok", "silent", "failed", "bad_exposure"]
    frames: Count
    age_s: Finite | None = None
    detail: Text | None = None


class Heartbeat(Message):
    """`max_seq` with `pending` and the declared losses is what the conservation audit is made of.

    `pending_ranges` lists the sequence numbers still in the spool as inclusive pairs, the lowest first; it is cut
    at 64 pairs and then `pending_complete` is False.
    """

    v: Literal[1] = 1
    edge: Identifier
    epoch: Epoch
    sent_at: Timestamp
    clock_ok: bool
    version: Text
    line: Identifier
    max_seq: Count
    pending: Pending
    pending_ranges: list[tuple[int, int]] = Field(default_factory=list, max_length=64)
    pending_complete: bool = True
    lost: dict[Text, Count] = Field(default_factory=dict)
    inspected: Count
    selected: Count
    dropped_frames: Count
    release: Count
    adapter: Text | None = None
    previous: Count | None = None
    update_state: Text = "idle"
    spool: Literal["ok", "degraded", "full"] = "ok"
    disk_free: Count
    rss_bytes: Count | None = None
    latency_p50_ms: Finite | None = None
    latency_p99_ms: Finite | None = None
    resent_bytes: Count = 0
    cameras: dict[Identifier, CameraHealth] = Field(default_factory=dict)


class Presence(Message):
    """Retained; the will is the offline one."""

    v: Literal[1] = 1
    edge: Identifier
    online: bool
    version: Text | None = None


class AggregateCell(Message):
    """Sums over all parts of one (camera, release, product, predicted class) in the period.

    `n` parts; `sum_g` and `sum_g2` the sum and sum of squares of the calibrated probability that the forced call
    is right; `hist` counts of the defect score in 20 equal bins; `n_selected` parts kept for upload.
    """

    camera: Identifier
    release: Count
    product: Text | None = None
    predicted: Text | None = None
    n: Count
    n_selected: Count
    verdicts: dict[Verdict, Count] = Field(default_factory=dict)
    sum_g: Finite = 0.0
    sum_g2: Finite = 0.0
    sum_defect: Finite = 0.0
    hist: list[int] = Field(default_factory=list, max_length=HISTOGRAM_BINS)


class Aggregate(Message):
    """One period (an hour) of one edge and line; acknowledged by `id`; `number` counts from 1 per epoch."""

    v: Literal[1] = 1
    id: Sid
    edge: Identifier
    epoch: Epoch
    number: Count
    line: Identifier
    period_start: Timestamp
    period_end: Timestamp
    period: Count
    cells: list[AggregateCell] = Field(max_length=256)


class Flag(Message):
    """An operator's "this one was wrong", by sample or by part serial."""

    v: Literal[1] = 1
    id: Sid
    edge: Identifier
    line: Identifier
    sid: Sid | None = None
    serial: Text | None = None
    reason: Text
    claimed: Text | None = None
    flagged_at: Timestamp


class DriftAlarm(Message):
    """A label-free drift statistic beyond its limit in two of three windows."""

    statistic: Text
    value: Finite
    limit: Finite
    p_value: Probability | None = None
