"""One part after inspection: what every later step reads, and its line in the journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edge_agent.cameras import Frame
from edge_agent.clock import period_of
from edge_agent.decision import Judgement
from models.contracts.sample import ModelRef, Selection, Verdict
from models.runtime.explain import explain
from models.runtime.image import Pixels
from models.runtime.inspector import Inspection, LineModel

NO_MODEL = "no_model"


class Stage(StrEnum):
    """Who decided a part on a box with a gate. LATE: the deadline passed before there was an answer, of the
    line's model or of a gate that was certain.

    NO_LINE_MODEL: the gate was not certain, and there was nobody else to ask.
    """

    GATE = "gate"
    LINE = "line"
    LATE = "late"
    NO_LINE_MODEL = "no_line_model"


@dataclass(frozen=True, slots=True)
class StageNote:
    """How the cascade came to its verdict. `line` is the line's model at that moment; `gate` and `gate_judgement` what
    the gate saw and would have said; `audit_probability` is set for a part that the line's model sees afterwards.
    """

    stage: Stage
    line: LineModel | None
    gate: Inspection | None = field(default=None, repr=False)
    gate_judgement: Judgement | None = None
    audit_probability: float | None = None


@dataclass(frozen=True, slots=True)
class InspectedPart:
    """`model` is the one that decided, None before the first release; `inspection` is its own, None also when the frame
    was unreadable or dropped. `stage` is set on a box with a gate.
    """

    frame: Frame
    model: LineModel | None
    judgement: Judgement
    inspection: Inspection | None = None
    pixels: Pixels | None = field(default=None, repr=False)
    stage: StageNote | None = None

    @property
    def release(self) -> int:
        """The line's release under which it was judged, 0 for none; the gate's own number is `gate_release`."""
        model = self.model if self.stage is None else self.stage.line
        return model.release if model else 0

    @property
    def decided_at_gate(self) -> bool:
        """Whether scores and verdict are the gate's."""
        gate = self.stage.gate if self.stage else None
        return gate is not None and self.model is gate.model

    def reference(self, model: LineModel) -> ModelRef:
        """What the envelope names: the bytes that decided, the line's release, and the gate's if it was the gate."""
        if not self.decided_at_gate:
            return model.reference()
        return model.reference().model_copy(update={"release": self.release, "gate": model.release})


def journal_row(part: InspectedPart, *, hour_s: int, kept: Selection | None, sid: str | None) -> dict[str, Any]:
    """The journal's line of a part: what was decided and what was kept, never the truth."""
    frame, decision = part.frame, part.judgement.decision
    reason = decision.cannot_judge.value if decision.cannot_judge else None
    row = {
        "serial": frame.part.serial,
        "captured_at": frame.captured_at.isoformat(),
        "period": period_of(frame.captured_at, hour_s=hour_s),
        "camera": frame.camera,
        "verdict": decision.verdict.value,
        "predicted": decision.predicted,
        "defect_score": decision.defect_score,
        "confidence": decision.confidence,
        "cannot_judge": reason if part.model is not None or reason else NO_MODEL,
        "place": _place(part),
        "release": part.release,
        "latency_ms": decision.latency_ms,
        "sid": sid,
        "stratum": kept.stratum.value if kept and sid else None,
        "pi_select": kept.pi_select if kept and sid else None,
    }
    return row if part.stage is None else row | _stage_columns(part.stage)


def _place(part: InspectedPart) -> str | None:
    """Where on the view the reasons for `predicted` lie, in English words, for a part that was rejected or unsure.

    None for a part that was passed or not judged, and for reasons that are spread over the view. Costs no pass through
    the model.
    """
    if part.inspection is None or part.judgement.call is None or part.judgement.decision.verdict is Verdict.PASS:
        return None
    place = explain(part.inspection).place
    return place.words("en") if place is not None else None


def _stage_columns(note: StageNote) -> dict[str, Any]:
    """What the journal says of a part on a box with a gate."""
    gate, own = note.gate, note.gate_judgement
    return {
        "stage": note.stage.value,
        "gate_release": gate.model.release if gate else None,
        "gate_score": own.decision.defect_score if own else None,
        "audit_probability": note.audit_probability,
    }
