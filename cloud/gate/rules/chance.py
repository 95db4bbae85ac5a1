"""A line's first release has nobody to be compared with: it must at least tell good from defective."""

from __future__ import annotations

import numpy as np

from cloud.gate.evidence import Evidence, Finding, percent
from cloud.gate.metrics import balanced_accuracy
from cloud.gate.paired import LEVEL


class BetterThanChance:
    """Balanced accuracy of the forced good/defect call: the lower one-sided 95 % bound is above one half."""

    name = "better_than_chance"
    relative = False

    def judge(self, evidence: Evidence) -> Finding:
        if evidence.incumbent is not None:
            return Finding(self.name, True, "there is an incumbent to compare with.", {})
        calls = evidence.candidate.calls
        truth = evidence.defect.astype(np.int64)
        predicted = np.where(calls.judged, calls.called_defect.astype(np.int64), -1)
        value = balanced_accuracy(truth, predicted, 2)

        def again(draw: np.ndarray) -> float:
            return balanced_accuracy(truth[draw], predicted[draw], 2)

        lower = float(np.quantile(evidence.resampler.values(again), LEVEL))
        text = (
            f"balanced accuracy of good against defect {percent(value)}, at least {percent(lower)}; above 50 % needed."
        )
        return Finding(self.name, lower > 0.5, text, {"balanced_accuracy": value, "lower_95": lower})
