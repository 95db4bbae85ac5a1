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


class CascadeSums(Message):
    """Sums over the parts of a box with a gate in front of the line's model; see `models.runtime.cascade`.

    Every part counts once in `n_pass`, `n_reject` (both ended at the gate) or `n_escalated`; `n_late` of the latter had
    passed their deadline, parts that the gate was certain of among them. Of the `n_audited` parts the big model
    disagreed on `escapes`, `overkills` and `unsures`. The sums of weights, one over the audit probability, make
    estimates add up over changed shares.
    """

    n_pass: Count = 0
    n_reject: Count = 0
    n_escalated: Count = 0
    n_late: Count = 0
    n_audited: Count = 0
    n_audits_lost: Count = 0
    escapes: Count = 0
    overkills: Count = 0
    unsures: Count = 0
    sum_w: Finite = 0.0
    sum_w2: Finite = 0.0
    sum_w_escape: Finite = 0.0
    sum_w_overkill: Finite = 0.0
    sum_w_unsure: Finite = 0.0


class EstimatedShare(Message):
    """With its two-sided 95 % limits."""

    rate: Probability
    low: Probability
    high: Probability


class CascadeHealth(Message):
    """`trouble` says in words why every part goes to the big model, or why none does. Sums are since the start of the
    process; the shares are of all parts that ended at the gate, absent before the first audited one.
    """

    gate_line: Identifier
    release: Count
    update_state: Text = "idle"
    trouble: Text | None = None
    sums: CascadeSums
    escape: EstimatedShare | None = None
    overkill: EstimatedShare | None = None
    unsure: EstimatedShare | None = None


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
    cascade: CascadeHealth | None = None


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
    """One period (an hour) of one edge and line; acknowledged by `id`; `number` counts from 1 per epoch.

    `cascade` rides in the first record of a period only, so that records add up.
    """

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
    cascade: CascadeSums | None = None


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
