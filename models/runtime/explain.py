"""Why a part was called what it was called, in words: class, how sure, where. Nothing is generated.

The place comes from the evidence map, what each image patch added to the class's score: the patches that gave at least
half of the strongest one's evidence and hang together with it. It says where the model found its reasons, which is not
always where the defect is; a map without a clear place is said to have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from models.runtime.image import Pixels
from models.runtime.inspector import Inspection
from models.runtime.preprocess import crop

F32 = NDArray[np.float32]
Language = Literal["en", "zh"]
Verdict = Literal["pass", "reject", "unsure"]
STRONG = 0.5
WIDE = 0.5
RAMP = cv2.COLORMAP_INFERNO
"""Lightness rises with the value, so the map reads without colour vision."""
_ROWS = {"en": ("upper", "middle", "lower"), "zh": ("上", "中", "下")}
_COLUMNS = {"en": ("left", "centre", "right"), "zh": ("左", "中", "右")}
_CANNOT = {
    "en": "The frame cannot be judged ({reason}): a person must look.",
    "zh": "该图像无法判定（{reason}），需人工复判。",
}
_CALLED = {
    "en": "{verdict}: {name}, {probability:.0%} sure (defect score {score:.2f}). {where}",
    "zh": "{verdict}：{name}，置信度 {probability:.0%}（缺陷分数 {score:.2f}）。{where}",
}
_VERDICT = {
    "en": {"pass": "Pass", "reject": "Reject", "unsure": "Unsure"},
    "zh": {"pass": "合格", "reject": "剔除", "unsure": "不确定"},
}
_WHERE = {
    "en": "The reasons lie {place}, on {share:.0%} of the view.",
    "zh": "依据位于{place}，约占视野的 {share:.0%}。",
}
_NOWHERE = {"en": "The reasons are spread over the view.", "zh": "依据分布在整个视野。"}
_CENTRE = {"en": "in the centre", "zh": "中央"}
_PLACE = {"en": "at the {row} {column}", "zh": "{column}{row}部"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where on the view the reasons lie. `x` and `y` are fractions of it, from the left and from the top; `share` is
    the part of the view they cover."""

    x: float
    y: float
    share: float

    def words(self, language: Language) -> str:
        """As a person would point at it."""
        row, column = (min(int(3 * value), 2) for value in (self.y, self.x))
        if row == column == 1:
            return _CENTRE[language]
        return _PLACE[language].format(row=_ROWS[language][row], column=_COLUMNS[language][column])


@dataclass(frozen=True, slots=True)
class Explanation:
    """`name` and `probability` are of the called class; None with `reason` for a frame that cannot be judged."""

    verdict: Verdict
    reason: str | None
    name: str | None = None
    probability: float | None = None
    defect_score: float | None = None
    place: Place | None = None
    evidence: F32 | None = None

    def sentence(self, language: Language = "en") -> str:
        """For the log and for the review page."""
        if self.name is None or self.probability is None or self.defect_score is None:
            return _CANNOT[language].format(reason=self.reason)
        where = _NOWHERE[language]
        if self.place is not None:
            where = _WHERE[language].format(place=self.place.words(language), share=self.place.share)
        return _CALLED[language].format(
            verdict=_VERDICT[language][self.verdict], name=self.name, probability=self.probability,
            score=self.defect_score, where=where,
        )  # fmt: skip


def explain(inspection: Inspection) -> Explanation:
    """The explanation of one inspected frame; at no extra pass through the model."""
    model = inspection.model
    if inspection.probabilities is None or inspection.evidence is None:
        return Explanation("unsure", None if inspection.reason is None else inspection.reason.value)
    probabilities, thresholds, defects = inspection.probabilities, model.thresholds, model.head.defect_mask
    score = float(probabilities[defects].sum())
    side = defects if score >= thresholds.call_at else ~defects
    called = int(np.where(side, probabilities, -1).argmax())
    evidence = model.head.evidence(inspection.evidence, called).reshape(model.base.manifest.grid)
    verdict: Verdict = "unsure"
    if score < thresholds.pass_below:
        verdict = "pass"
    elif score >= thresholds.reject_above:
        verdict = "reject"
    return Explanation(
        verdict, None, model.head.classes[called].name, float(probabilities[called]), score, find_place(evidence),
        evidence,
    )  # fmt: skip


def find_place(evidence: F32) -> Place | None:
    """The strongest patch's neighbourhood in a map [rows, columns]; None when there is no evidence or no place.

    Patches hang together when they touch, corners included. Wider than `WIDE` of the map is no place.
    """
    strongest = float(evidence.max())
    if not strongest > 0:
        return None
    _, labels = cv2.connectedComponents((evidence >= STRONG * strongest).astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(labels == labels[np.unravel_index(int(evidence.argmax()), evidence.shape)])
    share = len(rows) / evidence.size
    if share > WIDE:
        return None
    weight = evidence[rows, columns]
    x = float(np.average(columns + 0.5, weights=weight)) / evidence.shape[1]
    y = float(np.average(rows + 0.5, weights=weight)) / evidence.shape[0]
    return Place(x, y, share)


def overlay(pixels: Pixels, explanation: Explanation, *, roi: tuple[float, float, float, float] | None) -> Pixels:
    """The view in colour with the evidence over it, RGB; the view alone when there is no evidence."""
    part = crop(pixels, roi)
    picture = part if part.ndim == 3 else cv2.cvtColor(part, cv2.COLOR_GRAY2RGB)
    evidence = explanation.evidence
    if evidence is None or not float(evidence.max()) > 0:
        return picture
    shown = np.clip(evidence / evidence.max(), 0, 1)
    large = np.clip(cv2.resize(shown, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_CUBIC), 0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap((255 * large).astype(np.uint8), RAMP), cv2.COLOR_BGR2RGB)
    alpha = (0.6 * large)[:, :, None]
    return np.asarray((1 - alpha) * picture + alpha * colours, dtype=np.uint8)
