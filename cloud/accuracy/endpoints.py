"""HTTP of accuracy: the line's true accuracy, escape and overkill by period or by release."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from cloud.accuracy.schemas import AccuracyRow
from cloud.accuracy.service import DEFAULT_PERIODS
from cloud.http import Actor, Services

router = APIRouter(prefix="/api/v1/lines", tags=["accuracy"])


@router.get("/{line}/accuracy")
def get_accuracy(
    line: str,
    services: Services,
    _: Actor,
    by: Literal["period", "release"] = "period",
    periods: Annotated[int, Query(ge=1, le=10_000)] = DEFAULT_PERIODS,
    as_of: Annotated[int | None, Query(ge=0)] = None,
) -> list[AccuracyRow]:
    """Oldest first. `as_of` (microseconds since 1970) shows what was known then; `periods` counts by period only."""
    if by == "release":
        rows: list[AccuracyRow] = services.accuracy.by_release(line, as_of=as_of)
    else:
        rows = services.accuracy.by_period(line, periods=periods, as_of=as_of)
    return rows
