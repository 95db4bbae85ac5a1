"""Where a gate may be certain: cuts from labelled images scored by both models, and what the cascade then costs.

An *added escape* is a defect that the gate passes and the big model would not have passed; an *added overkill* a good
part that the gate rejects and the big model would not have rejected. UNSURE is neither: a person looks. What the gate
gets right where the big model is wrong is reported (`saved_*`) but never set against them: the limits are on the gross
share, so the net change is never worse.

**Picking.** On each side the cut moves from "nothing ends at the gate" inwards, and stops before the exact one-sided
upper bound of the added risk (Clopper and Pearson 1934) exceeds the limit. The bound can only grow on the way, so this
is fixed-sequence testing: the level holds for the cut that is picked, although many were tried (Angelopoulos et al.,
"Learn then Test", 2021). A bootstrap is not used: with no added escape among the images it claims a risk of exactly 0.
Images count as independent; where groups (lots, modules) differ the bounds are too narrow, so groups stay together in
the split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contracts.model_manifest import CascadeCuts, Thresholds
from models.contracts.sample import Verdict
from models.runtime.cascade import CascadeRule, Share
from models.runtime.intervals import clopper_pearson, lower_bound, upper_bound

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
EDGE = 1e-9


@dataclass(frozen=True, slots=True)
class Scored:
    """Labelled images seen by both: `gate` defect scores [N], NaN where the gate could not judge; `big` verdicts [N];
    `defect` [N] is the truth.
    """

    gate: F64
    big: Sequence[Verdict]
    defect: Mask

    def __post_init__(self) -> None:
        if not len(self.gate) == len(self.big) == len(self.defect):
            raise ValueError("scores, verdicts and labels must be of the same images")

    def big_is(self, verdict: Verdict) -> Mask:
        """[N]: where the big model gives that verdict."""
        return np.array([one is verdict for one in self.big], dtype=bool)


def verdict_of(score: float | None, thresholds: Thresholds) -> Verdict:
    """What a model alone does with a defect score; UNSURE without one."""
    if score is None or np.isnan(score):
        return Verdict.UNSURE
    if score >= thresholds.reject_above:
        return Verdict.REJECT
    return Verdict.PASS if score < thresholds.pass_below else Verdict.UNSURE


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """Most allowed added escape (share of defects) and added overkill (share of good parts), each at `level`."""

    added_escape: float
    added_overkill: float
    level: float = 0.95


def least_images(limit: float, *, level: float = 0.95) -> int:
    """Images of a kind without one added fault that certify `limit`: ``n >= log(1 - level) / log(1 - limit)``."""
    return int(np.ceil(np.log(1 - level) / np.log1p(-limit))) if 0 < limit < 1 else 0


def pick(scored: Scored, limits: RiskLimits, *, call_at: float) -> CascadeCuts:
    """The cuts that escalate least within the limits; a side is absent when no cut on it meets its limit.

    Args:
        call_at: the gate's own; a part is passed here only below it and rejected only from it on.

    Raises:
        ValueError: no defect or no good image.
    """
    if scored.defect.all() or not scored.defect.any():
        raise ValueError("a risk needs good and defective images")
    wrong_pass = scored.defect & ~scored.big_is(Verdict.PASS)
    wrong_reject = ~scored.defect & ~scored.big_is(Verdict.REJECT)
    allowed_pass = _allowed(limits.added_escape, int(scored.defect.sum()), limits.level)
    allowed_reject = _allowed(limits.added_overkill, int((~scored.defect).sum()), limits.level)
    below = _furthest(scored.gate, wrong_pass, allowed_pass, stop=call_at)
    above = _furthest(-scored.gate, wrong_reject, allowed_reject, stop=-call_at)
    return CascadeCuts(certain_pass_below=below, certain_reject_above=None if above is None else -above)


def _allowed(limit: float, n: int, level: float) -> int:
    """The most faults among n whose upper bound meets the limit; -1 when none at all is too many already."""
    low, high = -1, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if upper_bound(middle, n, level=level) <= limit else (low, middle - 1)
    return low


def _furthest(scores: F64, wrong: Mask, allowed: int, *, stop: float) -> float | None:
    """The largest cut up to `stop` with at most `allowed` wrong scores below it; None when no score lies below it.

    Midway between the first score too many and the one before it, so that neither image sits on the cut.
    """
    if allowed < 0:
        return None
    known = np.sort(scores[~np.isnan(scores)])
    bad = np.sort(scores[wrong & ~np.isnan(scores)])
    cut = stop
    if allowed < len(bad) and bad[allowed] < stop:
        before = known[known < bad[allowed]]
        cut = float((before[-1] + bad[allowed]) / 2) if len(before) else float(bad[allowed])
    return cut if (known < cut).any() else None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a cascade does on labelled images, beside the big model alone. Shares have two-sided 95 % exact limits.

    `escalation` share of all images; `added_*` and `saved_*` against the big model alone; `escape` and `overkill` of
    the whole cascade, as shares of defects and of good parts.
    """

    cuts: CascadeCuts
    images: int
    defects: int
    escalation: float
    added_escapes: int
    added_escape: Share
    saved_escapes: int
    added_overkills: int
    added_overkill: Share
    saved_overkills: int
    escape: Share
    overkill: Share


def cost(scored: Scored, cuts: CascadeCuts) -> Cost:
    """Of these cuts on these images.

    Raises:
        ValueError: no defect or no good image.
    """
    rule = CascadeRule(cuts, audit_share=0.0)
    gate = [rule.certain(float(score)) for score in scored.gate]
    final = [one or big for one, big in zip(gate, scored.big, strict=True)]
    passed, rejected = (np.array([one is v for one in final], dtype=bool) for v in (Verdict.PASS, Verdict.REJECT))
    big_passed, big_rejected = scored.big_is(Verdict.PASS), scored.big_is(Verdict.REJECT)
    defect, good = scored.defect, ~scored.defect
    defects, goods = int(defect.sum()), int(good.sum())
    added_escapes = int((defect & passed & ~big_passed).sum())
    added_overkills = int((good & rejected & ~big_rejected).sum())
    return Cost(
        cuts=cuts, images=len(final), defects=defects, escalation=sum(one is None for one in gate) / len(final),
        added_escapes=added_escapes, added_escape=_share(added_escapes, defects),
        saved_escapes=int((defect & ~passed & big_passed).sum()),
        added_overkills=added_overkills, added_overkill=_share(added_overkills, goods),
        saved_overkills=int((good & ~rejected & big_rejected).sum()),
        escape=_share(int((defect & passed).sum()), defects), overkill=_share(int((good & rejected).sum()), goods),
    )  # fmt: skip


def _share(events: int, n: int) -> Share:
    if n == 0:
        raise ValueError("a risk needs good and defective images")
    return Share(events / n, *clopper_pearson(events, n))


def contradicted(found: Cost, limits: RiskLimits) -> bool:
    """Whether other images rule a limit out: the exact lower bound of an added risk lies above it."""
    goods = found.images - found.defects
    escapes = lower_bound(found.added_escapes, found.defects, level=limits.level)
    overkills = lower_bound(found.added_overkills, goods, level=limits.level)
    return escapes > limits.added_escape or overkills > limits.added_overkill


def cuts_for(scores: F64, *, escalation: float, call_at: float) -> CascadeCuts:
    """Cuts that escalate about that share of these scores: those nearest to the call in log-odds, on both sides.

    Used for the curve and for benches, where the share is given and not the risk.
    """
    known = scores[~np.isnan(scores)]
    if escalation >= 1 or len(known) == 0:
        return CascadeCuts()
    centre = float(_logit(np.array([call_at]))[0])
    reach = float(np.quantile(np.abs(_logit(known) - centre), escalation)) if escalation > 0 else 0.0
    low, high = (float(1 / (1 + np.exp(-(centre + side * reach)))) for side in (-1, 1))
    return CascadeCuts(certain_pass_below=min(low, call_at), certain_reject_above=min(max(high, call_at), 1.0))


def _logit(p: F64) -> F64:
    clipped = np.clip(p, EDGE, 1 - EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), dtype=np.float64)


def curve(fit: Scored, judge: Scored, *, call_at: float, shares: Sequence[float]) -> list[Cost]:
    """The cost on `judge` of cuts that escalate `shares` of `fit`."""
    return [cost(judge, cuts_for(fit.gate, escalation=share, call_at=call_at)) for share in shares]
