"""Looking at a frame with one model, whatever the model or the frame does."""

from __future__ import annotations

import structlog

from edge_agent.decision import Judgement, decide
from edge_agent.health import Meter
from models.contracts.sample import CannotJudge
from models.runtime.image import Pixels
from models.runtime.inspector import Inspection, LineModel, inspect

_log = structlog.get_logger("pipeline")


def look(model: LineModel, pixels: Pixels, meter: Meter) -> Inspection:
    """One frame through one model. A model that fails is counted, and the frame has unusable scores."""
    try:
        return inspect(model, pixels)
    except Exception as fault:  # noqa: BLE001 - ONNX Runtime raises its own untyped errors; the part is UNSURE
        meter.count("pipeline_faults")
        _log.error("the model failed on a frame", release=model.release, exc_info=fault)
        return Inspection(model=model, exposure=None, reason=CannotJudge.BAD_SCORES, latency_ms=0.0)


def judged(inspection: Inspection, *, latency_ms: float) -> Judgement:
    """What the inspection's own model and thresholds make of it."""
    model = inspection.model
    return decide(
        inspection.probabilities,
        classes=model.head.classes,
        thresholds=model.thresholds,
        reason=inspection.reason,
        latency_ms=latency_ms,
    )
