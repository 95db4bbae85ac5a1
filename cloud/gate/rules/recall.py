"""No class may be forgotten, in no domain.

With two or more domains each is judged and not their sum: over all images, ending a collapse in one domain and
forgetting another look alike, and what the sum may not lose is the non-inferiority rule's business.

Evidence of a drop beyond the limit refuses the release, with one exception. A model that has collapsed calls nearly
everything by one name and so has a splendid recall of that class; whoever ends the collapse loses some of it. So a drop
is a change of operating point, and not forgetting, where the class's informedness in that slice (recall less false
alarms; Youden 1950) rose with one-sided 95 % evidence. A class that is truly forgotten loses both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.gate.evidence import Evidence, Finding, percent
from cloud.gate.metrics import Resampler
from cloud.gate.paired import LEVEL, drop_is_evident, margin_p

Mask = NDArray[np.bool_]
EVERYTHING = "all"


@dataclass(frozen=True, slots=True)
class Slice:
    """One class in one slice: `lost` and `won` are images only one of the two models got right."""

    where: str
    name: str
    n: int
    lost: int
    won: int
    before: float
    after: float
    p: float
    evident: bool
    gain_lower: float | None = None

    @property
    def refused(self) -> bool:
        return self.evident and (self.gain_lower is None or self.gain_lower <= 0)

    def numbers(self) -> dict[str, Any]:
        return {
            "slice": self.where, "class": self.name, "n": self.n, "before": self.before, "after": self.after,
            "lost": self.lost, "won": self.won, "p": self.p, "evident": self.evident,
            "informedness_gain_lower_95": self.gain_lower, "refused": self.refused,
        }  # fmt: skip

    def words(self) -> str:
        place = "" if self.where == EVERYTHING else f" on {self.where}"
        text = f"{self.name}{place}: recall {percent(self.before)} -> {percent(self.after)} ({self.n} images)"
        if self.evident and not self.refused:
            return f"{text}, but with so many fewer false alarms that it tells the class apart better"
        return text


class Recall:
    """Every class in every domain; over all images when there is only one."""

    name = "recall"
    relative = True

    def judge(self, evidence: Evidence) -> Finding:
        found = [
            self._look(evidence, where, mask, c)
            for where, mask in _judged(evidence).items()
            for c in range(len(evidence.classes))
            if (mask & (evidence.truth == c)).sum() >= evidence.limits.min_images_per_slice
        ]
        refused, moved = [s for s in found if s.refused], [s for s in found if s.evident and not s.refused]
        limit = percent(evidence.limits.recall_drop)
        if refused:
            text = (
                f"recall fell by more than {limit} with 95 % evidence: " + "; ".join(s.words() for s in refused) + "."
            )
        else:
            text = f"no class lost more than {limit} of recall with 95 % evidence ({len(found)} looked at)."
        if moved:
            text += " Changes of operating point: " + "; ".join(s.words() for s in moved) + "."
        return Finding(self.name, not refused, text, {"slices": [s.numbers() for s in found]})

    def _look(self, evidence: Evidence, where: str, mask: Mask, c: int) -> Slice:
        if evidence.incumbent is None:
            raise ValueError("recall compares with an incumbent")
        new, old = (j.calls.predicted == c for j in (evidence.candidate, evidence.incumbent))
        mine = mask & (evidence.truth == c)
        n, lost, won = int(mine.sum()), int((mine & old & ~new).sum()), int((mine & new & ~old).sum())
        limit = evidence.limits.recall_drop
        evident = drop_is_evident(lost, won, n, limit)
        return Slice(
            where=where, name=evidence.classes[c].name, n=n, lost=lost, won=won,
            before=float(old[mine].mean()), after=float(new[mine].mean()),
            p=margin_p(lost, won, n, limit), evident=evident,
            gain_lower=_gain_lower(evidence, mask, new, old, c) if evident else None,
        )  # fmt: skip


def _judged(evidence: Evidence) -> dict[str, Mask]:
    slices = evidence.slices()
    return {where: mask for where, mask in slices.items() if where != EVERYTHING} or slices


def _gain_lower(evidence: Evidence, mask: Mask, new: Mask, old: Mask, c: int) -> float | None:
    """Lower one-sided 95 % bound of the rise of informedness in the slice; None when it has no other class."""
    rows = np.flatnonzero(mask)
    mine = evidence.truth[rows] == c
    if mine.all():
        return None
    change = new[rows].astype(np.float64) - old[rows].astype(np.float64)

    def gain(draw: NDArray[np.int64]) -> float:
        part, positive = change[draw], mine[draw]
        if positive.all() or not positive.any():
            return float("nan")
        return float(part[positive].mean() - part[~positive].mean())

    limits = evidence.limits
    resampler = Resampler([evidence.groups[i] for i in rows], mine.astype(np.int64), limits.seed, limits.bootstrap)
    values = resampler.values(gain)
    return float(np.quantile(values, LEVEL)) if len(values) else None
