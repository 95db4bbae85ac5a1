"""The cascade's rules: which parts end at the gate, which go to the big model, and how often the gate is wrong.

A part ends at the gate when the gate's calibrated defect score lies beyond one of two cuts that were chosen on
labelled images (`models.runtime.cascade_fit`) and travel signed with the gate's release. Of these parts a random share,
the audit share, is shown to the big model all the same, whatever the gate said: only they can tell how often the gate
errs. Every audited part carries the probability with which it was drawn, so shares that changed over the day still add
up.

No I/O and no clock; the random source is an argument. Deadlines and threads are `edge_agent.cascade`'s.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from enum import StrEnum

from models.contracts.model_manifest import CascadeCuts
from models.contracts.sample import Verdict
from models.runtime.intervals import clopper_pearson


class Route(StrEnum):
    """Where a part goes after the gate. AUDIT ends at the gate too; the big model looks only to check the gate."""

    END_AT_GATE = "end_at_gate"
    AUDIT = "audit"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class Routing:
    """`verdict` and `audit_probability` are None exactly when the part is escalated."""

    route: Route
    verdict: Verdict | None = None
    audit_probability: float | None = None


@dataclass(frozen=True, slots=True)
class CascadeRule:
    """`audit_share` is the probability, 0..1, with which a part that ends at the gate is audited."""

    cuts: CascadeCuts
    audit_share: float

    def __post_init__(self) -> None:
        if not 0 <= self.audit_share <= 1:
            raise ValueError(f"audit share {self.audit_share} is no probability: write 0 to 1")

    def certain(self, defect_score: float | None) -> Verdict | None:
        """PASS or REJECT when the gate is certain; None for a score between the cuts, no score, or NaN."""
        if defect_score is None or math.isnan(defect_score):
            return None
        below, above = self.cuts.certain_pass_below, self.cuts.certain_reject_above
        if below is not None and defect_score < below:
            return Verdict.PASS
        return Verdict.REJECT if above is not None and defect_score >= above else None

    def route(self, defect_score: float | None, rng: random.Random) -> Routing:
        """Where the part goes; `rng` is asked once for every part that ends at the gate."""
        verdict = self.certain(defect_score)
        if verdict is None:
            return Routing(Route.ESCALATE)
        route = Route.AUDIT if rng.random() < self.audit_share else Route.END_AT_GATE
        return Routing(route, verdict, self.audit_share)


class Outcome(StrEnum):
    """What the big model says of a part that ended at the gate. It is the reference, not the truth."""

    SAME = "same"
    ESCAPE = "escape"
    OVERKILL = "overkill"
    UNSURE = "unsure"


def outcome(gate: Verdict, big: Verdict) -> Outcome:
    """ESCAPE: passed by the gate, rejected by the big model; OVERKILL the reverse; UNSURE: a person would have looked.

    Raises:
        ValueError: the gate was unsure, so the part did not end there.
    """
    if gate is Verdict.UNSURE:
        raise ValueError("a part that ends at the gate was passed or rejected there")
    if gate is big:
        return Outcome.SAME
    if big is Verdict.UNSURE:
        return Outcome.UNSURE
    return Outcome.ESCAPE if gate is Verdict.PASS else Outcome.OVERKILL


@dataclass(slots=True)
class CascadeTally:
    """Sums over parts. Every part counts once in `n_pass`, `n_reject` or `n_escalated`; `n_escalated` is what did not
    end at the gate: `n_late` of these had passed their deadline, parts the gate was certain of among them. Weights are
    one over the audit probability; tallies of several hours add up.
    """

    n_pass: int = 0
    n_reject: int = 0
    n_escalated: int = 0
    n_late: int = 0
    n_audited: int = 0
    n_audits_lost: int = 0
    escapes: int = 0
    overkills: int = 0
    unsures: int = 0
    sum_w: float = 0.0
    sum_w2: float = 0.0
    sum_w_escape: float = 0.0
    sum_w_overkill: float = 0.0
    sum_w_unsure: float = 0.0

    def ended(self, verdict: Verdict) -> None:
        """A part ended at the gate."""
        if verdict is Verdict.PASS:
            self.n_pass += 1
        else:
            self.n_reject += 1

    def escalated(self, *, late: bool) -> None:
        """A part did not end at the gate: it was the big model's to decide, or `late` whoever would have decided it."""
        self.n_escalated += 1
        self.n_late += late

    def audited(self, found: Outcome, probability: float) -> None:
        """The big model has seen an audited part that was drawn with `probability`, above 0."""
        weight = 1 / probability
        self.n_audited += 1
        self.sum_w += weight
        self.sum_w2 += weight * weight
        self.escapes += found is Outcome.ESCAPE
        self.overkills += found is Outcome.OVERKILL
        self.unsures += found is Outcome.UNSURE
        self.sum_w_escape += weight * (found is Outcome.ESCAPE)
        self.sum_w_overkill += weight * (found is Outcome.OVERKILL)
        self.sum_w_unsure += weight * (found is Outcome.UNSURE)

    @property
    def n_ended(self) -> int:
        return self.n_pass + self.n_reject


@dataclass(frozen=True, slots=True)
class Share:
    """An estimated share with its two-sided 95 % limits."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MissRates:
    """Of all parts that ended at the gate, the shares on which the big model says otherwise, from `audited` parts."""

    audited: int
    escape: Share
    overkill: Share
    unsure: Share


def miss_rates(tally: CascadeTally) -> MissRates | None:
    """The gate's own miss rates; None before the first audited part.

    The ratio estimator ``sum(w d) / sum(w)`` with w one over the audit probability (Hajek 1971), and Clopper-Pearson
    limits at the effective sample size ``sum(w)^2 / sum(w^2)`` (Korn and Graubard 1998). With one audit share over all
    parts both are the plain share and its exact limits.
    """
    if tally.n_audited == 0:
        return None
    effective = min(tally.sum_w**2 / tally.sum_w2, float(tally.n_audited))

    def share(weighted: float) -> Share:
        rate = min(max(weighted / tally.sum_w, 0.0), 1.0)
        return Share(rate, *clopper_pearson(rate * effective, effective))

    return MissRates(tally.n_audited, share(tally.sum_w_escape), share(tally.sum_w_overkill), share(tally.sum_w_unsure))
