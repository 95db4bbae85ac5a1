"""What the gate asks of a release. Shares and differences are fractions (0.005 is half a percentage point)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class GateSettings(BaseModel):
    """Limits of the gate's rules.

    Args:
        margin: smallest non-inferiority margin on macro-F1.
        margin_errors: the margin is at least this many standard errors of the paired difference.
        erosion: macro-F1 may lie this far below the best release's on the same gate set: small losses must not add up.
        recall_drop: a class may not lose more recall than this, with one-sided 95 % evidence.
        calibration: the lower bound of the debiased calibration error may not exceed this.
        release_bytes: manifest and blobs of an adapter release; raise it for presets larger than nano.
        latency_p95_ms: pixels to scores on the gate's machine, one frame at a time.
        parity: largest difference of a class probability between torch and the exported pair.
        different: smallest change of outputs that makes a release worth sending.
        min_images: a smaller gate set judges nothing.
        min_images_per_slice: a domain's class with fewer images is not judged.
        first_must_catch_share: share of must-catch images a line's first release may pass; None only reports it.
        bootstrap: draws; `seed` makes a report repeatable.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    margin: Fraction = 0.005
    margin_errors: Annotated[float, Field(ge=0, le=5)] = 1.5
    erosion: Fraction = 0.03
    recall_drop: Fraction = 0.02
    calibration: Fraction = 0.03
    release_bytes: Annotated[int, Field(ge=1)] = 2_000_000
    latency_p95_ms: Annotated[float, Field(gt=0)] = 1000.0
    parity: Fraction = 0.05
    different: Annotated[float, Field(gt=0)] = 1e-4
    min_images: Annotated[int, Field(ge=2)] = 20
    min_images_per_slice: Annotated[int, Field(ge=1)] = 5
    first_must_catch_share: Fraction | None = None
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    seed: int = 0
