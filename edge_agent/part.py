"""One part after inspection: what every later step reads, and its line in the journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge_agent.cameras import Frame
from edge_agent.clock import period_of
from edge_agent.decision import Judgement
from models.contracts.sample import Selection
from models.runtime.image import Pixels
from models.runtime.inspector import Inspection, LineModel

NO_MODEL = "no_model"


@dataclass(frozen=True, slots=True)
class InspectedPart:
    """`model` is None before the first release; `inspection` also when the frame was unreadable or dropped."""

    frame: Frame
    model: LineModel | None
    judgement: Judgement
    inspection: Inspection | None = None
    pixels: Pixels | None = field(default=None, repr=False)

    @property
    def release(self) -> int:
        """The channel release that judged it, 0 for none."""
        return self.model.release if self.model else 0


def journal_row(part: InspectedPart, *, hour_s: int, kept: Selection | None, sid: str | None) -> dict[str, Any]:
    """The journal's line of a part: what was decided and what was kept, never the truth."""
    frame, decision = part.frame, part.judgement.decision
    reason = decision.cannot_judge.value if decision.cannot_judge else None
    return {
        "serial": frame.part.serial,
        "captured_at": frame.captured_at.isoformat(),
        "period": period_of(frame.captured_at, hour_s=hour_s),
        "camera": frame.camera,
        "verdict": decision.verdict.value,
        "predicted": decision.predicted,
        "defect_score": decision.defect_score,
        "confidence": decision.confidence,
        "cannot_judge": reason if part.model is not None or reason else NO_MODEL,
        "release": part.release,
        "latency_ms": decision.latency_ms,
        "sid": sid,
        "stratum": kept.stratum.value if kept and sid else None,
        "pi_select": kept.pi_select if kept and sid else None,
    }
