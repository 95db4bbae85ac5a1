"""The envelope of a kept part: everything known about it, frozen at this moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_agent.clock import Clock
from edge_agent.part import InspectedPart
from models.contracts.base import sha256_hex
from models.contracts.sample import CannotJudge, ImageInfo, SampleMeta, Selection
from models.runtime.image import Unreadable, read_header
from models.runtime.inspector import LineModel

MAX_EVIDENCE = 1024


@dataclass(frozen=True, slots=True)
class Envelopes:
    """Makes envelopes of one edge and line."""

    edge: str
    line: str
    clock: Clock

    def builder(self, part: InspectedPart, model: LineModel, selection: Selection) -> Callable[[str, int], SampleMeta]:
        """What the spool calls with the epoch and number it has reserved."""
        frame = part.frame
        evidence, grid = _evidence(part)

        def build(epoch: str, seq: int) -> SampleMeta:
            return SampleMeta(
                sid=frame.id,
                edge=self.edge,
                epoch=epoch,
                seq=seq,
                line=self.line,
                camera=frame.camera,
                part=frame.part,
                captured_at=frame.captured_at,
                captured_mono_ns=frame.mono_ns,
                clock=self.clock.state(),
                image=_image(frame.data, part),
                exposure=part.inspection.exposure if part.inspection else None,
                decision=part.judgement.decision,
                model=part.reference(model),
                selection=selection,
                evidence=evidence,
                evidence_grid=grid,
                evidence_roi=_looked_at(part) if evidence else None,
            )

        return build


def _image(data: bytes, part: InspectedPart) -> ImageInfo:
    digest, size = sha256_hex(data), len(data)
    try:
        header = read_header(data)
    except Unreadable:
        return ImageInfo(sha256=digest, size=size, type="application/octet-stream")
    if part.judgement.decision.cannot_judge is CannotJudge.UNREADABLE:
        return ImageInfo.model_validate({"sha256": digest, "size": size, "type": header.type})
    return ImageInfo.model_validate(
        {"sha256": digest, "size": size, "type": header.type, "width": header.width, "height": header.height}
    )


def _evidence(part: InspectedPart) -> tuple[list[float] | None, tuple[int, int] | None]:
    """The evidence map to three digits; left out when the frame was not judged or the map has over 1,024 patches."""
    found = part.inspection.evidence_map() if part.inspection and part.judgement.call else None
    if found is None or part.model is None or not 0 < found.size <= MAX_EVIDENCE or not np.isfinite(found).all():
        return None, None
    return [round(float(value), 3) for value in np.clip(found, 0, 1)], part.model.base.manifest.grid


def _looked_at(part: InspectedPart) -> tuple[float, float, float, float] | None:
    """The region of the frame that the deciding model saw; None for all of it."""
    if part.model is None:
        return None
    return part.model.manifest.roi or part.model.base.manifest.preprocessing.roi
