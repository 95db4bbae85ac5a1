"""The sample envelope: everything known about one part's image at the moment the edge kept it.

The envelope is written once, before the sample is accepted by the spool, and never changed: its digest rides in
every offer. What is decided later travels beside it (`OfferItem.pi_survive`, labels, flags).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from models.contracts.base import (
    Count,
    Epoch,
    Finite,
    Identifier,
    Inclusion,
    Message,
    Positive,
    Probability,
    Sha256,
    Text,
    Timestamp,
)
from models.contracts.ids import Sid


class Verdict(StrEnum):
    """What the edge did with the part. UNSURE goes to a person and is neither an escape nor an overkill."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    REJECT = "reject"
    UNSURE = "unsure"


class Stratum(StrEnum):
    """Which stream kept the sample. Each has its own rule and its own inclusion probability."""

    HARD = "hard"
    AUDIT = "audit"
    FLAGGED = "flagged"
    CANNOT_JUDGE = "cannot_judge"


class CannotJudge(StrEnum):
    """Why a frame has no usable scores. Such a frame is kept and the verdict is UNSURE."""

    UNREADABLE = "unreadable"
    WRONG_SIZE = "wrong_size"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    NO_CONTRAST = "no_contrast"
    BAD_SCORES = "bad_scores"
    LATE = "late"


class ClockState(Message):
    """Whether wall time can be believed. Order never depends on it: that is `seq`'s job."""

    ok: bool
    source: Literal["ntp", "ptp", "rtc", "floor", "unknown"] = "unknown"
    offset_ms: Finite | None = None


class Part(Message):
    """The workpiece, as the line knows it. Only the serial is always there."""

    serial: Text
    lot: Text | None = None
    product: Text | None = None
    shift: Text | None = None
    trigger: Count | None = None


class Exposure(Message):
    """Image quality measured on the raw frame.

    `mean` and `contrast` (standard deviation) in grey levels 0-255, `sharpness` the variance of the Laplacian,
    `shift` the distance of the mean from the line's reference in grey levels.
    """

    mean: Finite
    contrast: Finite
    sharpness: Finite
    shift: Finite | None = None
    exposure_us: Count | None = None
    gain_db: Finite | None = None


class ImageInfo(Message):
    """The image bytes as taken, never a rendered frame. Width and height are absent when unreadable."""

    sha256: Sha256
    size: Positive
    type: Literal["image/png", "image/jpeg", "image/bmp", "image/tiff", "application/octet-stream"]
    width: Positive | None = None
    height: Positive | None = None


class Decision(Message):
    """`scores` are calibrated class probabilities that sum to 1; empty when the frame could not be judged.

    `defect_score` is the total probability of the defect classes, `confidence` the largest class probability.
    """

    verdict: Verdict
    predicted: Text | None = None
    confidence: Probability | None = None
    defect_score: Probability | None = None
    scores: dict[Text, Probability] = Field(default_factory=dict)
    cannot_judge: CannotJudge | None = None
    latency_ms: Finite


class ModelRef(Message):
    """Exactly which bytes judged the part, by digest. `release` is the line's; `gate` is the gate's own release when it
    decided in front of the line's model, and then the digests are the gate's.
    """

    release: Count
    gate: Count | None = None
    base: Sha256
    adapter: Sha256 | None = None
    head: Sha256
    thresholds: Sha256
    prototypes: Sha256 | None = None


class SelectionParts(Message):
    """The terms behind an inclusion probability, so it can be checked and replayed years later.

    ``u = 0.5 (1 - margin) + 0.35 novelty + 0.15 disagreement``; a term that was not available is None and its
    weight was given to the others. `draw` is the uniform number that was compared with `pi_select`.
    """

    margin: Probability | None = None
    novelty: Probability | None = None
    disagreement: Probability | None = None
    u: Probability | None = None
    floor: Probability
    pace: Finite
    near_duplicate_of: Sid | None = None
    draw: Probability


class Selection(Message):
    """Why this sample was kept and with what probability a part like it is kept."""

    stratum: Stratum
    pi_select: Inclusion
    policy: Text
    parts: SelectionParts


class SampleMeta(Message):
    """The envelope of one sample, version 1. `evidence` covers `evidence_roi` (x, y, width, height as shares of the
    frame), the whole frame when that is absent.
    """

    v: Literal[1] = 1
    sid: Sid
    edge: Identifier
    epoch: Epoch
    seq: Positive
    line: Identifier
    camera: Identifier
    part: Part
    captured_at: Timestamp
    captured_mono_ns: Count
    clock: ClockState
    image: ImageInfo
    exposure: Exposure | None = None
    decision: Decision
    model: ModelRef
    selection: Selection
    evidence: list[Probability] | None = Field(default=None, max_length=1024)
    evidence_grid: tuple[Positive, Positive] | None = None
    evidence_roi: tuple[Probability, Probability, Probability, Probability] | None = None
