"""Macro-F1 must not fall by more than the margin, which is stated together with what it could have seen."""

from __future__ import annotations

import numpy as np

from cloud.gate.evidence import Evidence, Finding, Judged, percent, points
from cloud.gate.metrics import macro_f1
from cloud.gate.paired import Z95, power

DROPS = (0.01, 0.02, 0.03, 0.05)


class NonInferior:
    """Observed paired difference >= -m, ``m = max(margin, margin_errors x standard error)`` by paired bootstrap."""

    name = "macro_f1"
    relative = True

    def judge(self, evidence: Evidence) -> Finding:
        incumbent, limits = evidence.incumbent, evidence.limits
        if incumbent is None:
            raise ValueError("macro_f1 compares with an incumbent")
        before, after = self._f1(evidence, incumbent), self._f1(evidence, evidence.candidate)
        error = self._error(evidence, incumbent)
        margin = max(limits.margin, limits.margin_errors * error)
        difference = after - before
        curve = {f"{drop:.2f}": round(power(drop, margin=margin, error=error), 4) for drop in DROPS}
        numbers = {
            "before": before, "after": after, "difference": difference, "standard_error": error, "margin": margin,
            "lower_95": difference - Z95 * error, "n": len(evidence.truth), "power": curve,
        }  # fmt: skip
        words = ", ".join(f"{float(drop) * 100:.0f} pp with {percent(p)}" for drop, p in curve.items())
        text = (
            f"macro-F1 {percent(before)} -> {percent(after)} ({points(difference)}, standard error {percent(error)}) "
            f"on {len(evidence.truth)} images; a drop up to {percent(margin)} is within the margin. "
            f"A true drop would be refused: {words}."
        )
        return Finding(self.name, bool(difference >= -margin), text, numbers)

    @staticmethod
    def _f1(evidence: Evidence, judged: Judged) -> float:
        return macro_f1(evidence.truth, judged.calls.predicted, len(evidence.classes))

    @staticmethod
    def _error(evidence: Evidence, incumbent: Judged) -> float:
        truth, classes = evidence.truth, len(evidence.classes)
        new, old = evidence.candidate.calls.predicted, incumbent.calls.predicted

        def difference(rows: np.ndarray) -> float:
            return macro_f1(truth[rows], new[rows], classes) - macro_f1(truth[rows], old[rows], classes)

        return float(np.std(evidence.resampler.values(difference), ddof=1))
