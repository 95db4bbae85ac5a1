"""Small losses must not add up: each release may be a little worse than the last, never much worse than the best."""

from __future__ import annotations

from cloud.gate.evidence import Evidence, Finding, percent
from cloud.gate.metrics import macro_f1


class Erosion:
    """Macro-F1 against the best published release that was judged on the same gate set."""

    name = "erosion"
    relative = True

    def judge(self, evidence: Evidence) -> Finding:
        if evidence.best is None:
            return Finding(self.name, True, "no earlier release was judged on this gate set.", {})
        release, best = evidence.best
        value = macro_f1(evidence.truth, evidence.candidate.calls.predicted, len(evidence.classes))
        limit = evidence.limits.erosion
        text = (
            f"macro-F1 {percent(value)}; the best so far on this gate set is release {release} with {percent(best)}, "
            f"and no release may lie more than {percent(limit)} below it."
        )
        numbers = {"value": value, "best": best, "best_release": release, "limit": limit}
        return Finding(self.name, value >= best - limit, text, numbers)
