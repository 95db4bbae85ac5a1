"""The exported files must be what was trained, give usable scores, and be worth sending."""

from __future__ import annotations

import math

import numpy as np

from cloud.gate.evidence import Evidence, Finding

PARITY = "parity"
"""Key in the candidate's metrics: largest class probability difference between torch and the exported pair."""


class Parity:
    """Torch and the exported pair agree, as measured by the trainer. Not measured is not agreed."""

    name = "parity"
    relative = False

    def judge(self, evidence: Evidence) -> Finding:
        value, limit = evidence.measured.get(PARITY), evidence.limits.parity
        if not isinstance(value, int | float) or not math.isfinite(value):
            text = f"the trainer gave no agreement of torch and ONNX (metric {PARITY!r}); it must measure it."
            return Finding(self.name, False, text, {"value": None, "limit": limit})
        text = f"torch and the exported files differ by {value:.4f} in probability, {limit:.4f} allowed."
        return Finding(self.name, value <= limit, text, {"value": float(value), "limit": limit})


class Usable:
    """Finite scores on every gate image that can be judged at all."""

    name = "usable_scores"
    relative = False

    def judge(self, evidence: Evidence) -> Finding:
        judged = evidence.candidate.calls.judged
        reference = judged if evidence.incumbent is None else evidence.incumbent.calls.judged
        lost, none = int((reference & ~judged).sum()), int((~judged).sum())
        fine = lost == 0 and none * 10 <= len(judged)
        text = f"{none} of {len(judged)} gate images cannot be judged, {lost} of them by the incumbent only."
        return Finding(self.name, fine, text, {"unjudged": none, "newly_unjudged": lost})


class Different:
    """An adapter that changes nothing was not applied, and a release equal to the last one is not worth sending.

    Other cascade cuts are: a box ends other parts by them.
    """

    name = "different"
    relative = False

    def judge(self, evidence: Evidence) -> Finding:
        least, candidate = evidence.limits.different, evidence.candidate
        shifts = candidate.scores.shift[np.isfinite(candidate.scores.shift)]
        shift = float(shifts.mean()) if len(shifts) else 0.0
        if candidate.has_adapter and shift < least:
            text = f"the adapter moves embeddings by {shift:.6f}: its outputs are the bare base's."
            return Finding(self.name, False, text, {"from_base": shift})
        change = self._change(evidence)
        recut = evidence.incumbent is not None and evidence.incumbent.cuts != candidate.cuts
        if change is not None and change < least and not recut:
            text = f"outputs differ from the incumbent's by {change:.6f} at most: there is nothing new to send."
            return Finding(self.name, False, text, {"from_base": shift, "from_incumbent": change})
        against = "" if change is None else f", probabilities from the incumbent's by up to {change:.3f}"
        against += "; the cascade cuts are others" if recut else ""
        text = f"embeddings differ from the bare base's by {shift:.3f}{against}."
        return Finding(self.name, True, text, {"from_base": shift, "from_incumbent": change})

    @staticmethod
    def _change(evidence: Evidence) -> float | None:
        if evidence.incumbent is None:
            return None
        if evidence.incumbent.identity == evidence.candidate.identity:
            return 0.0
        old, new = evidence.incumbent.calls, evidence.candidate.calls
        both = old.judged & new.judged
        if (old.predicted != new.predicted).any() or (old.passed != new.passed).any():
            return 1.0
        return float(np.abs(old.defect_score[both] - new.defect_score[both]).max(initial=0.0))
