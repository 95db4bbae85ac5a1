"""The confidence must mean what it says: thresholds and the accuracy estimate both rest on it."""

from __future__ import annotations

import numpy as np

from cloud.gate.evidence import Evidence, Finding, percent
from cloud.gate.metrics import Resampler, debiased_calibration_error2, signed_root
from cloud.gate.paired import Z95


class Calibration:
    """The debiased calibration error of the forced call; refused only where its lower 95 % bound is over the limit.

    The bound is taken on the squared error, estimate less 1.645 bootstrap standard deviations: a bootstrap quantile
    would be too high, since resampling adds the very chance error that was just taken out.
    """

    name = "calibration"
    relative = False

    def judge(self, evidence: Evidence) -> Finding:
        calls, limit = evidence.candidate.calls, evidence.limits.calibration
        rows = np.flatnonzero(calls.judged)
        right = calls.called_defect == evidence.defect
        squared = debiased_calibration_error2(calls.confidence[rows], right[rows])
        if not np.isfinite(squared):
            return Finding(self.name, False, "too few judged images to measure calibration.", {"n": len(rows)})
        limits = evidence.limits
        resampler = Resampler([evidence.groups[i] for i in rows], evidence.truth[rows], limits.seed, limits.bootstrap)

        def again(draw: np.ndarray) -> float:
            return debiased_calibration_error2(calls.confidence[rows[draw]], right[rows[draw]])

        spread = float(np.std(resampler.values(again), ddof=1))
        error, lower = signed_root(squared), signed_root(squared - Z95 * spread)
        numbers = {"error": error, "lower_95": lower, "limit": limit, "n": len(rows)}
        text = (
            f"calibration error {percent(error)}, at least {percent(lower)} with 95 % confidence; "
            f"the lower bound may be {percent(limit)}."
        )
        return Finding(self.name, lower <= limit, text, numbers)
