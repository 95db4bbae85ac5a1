"""The line's gate set must be able to judge: enough images, good and defective ones among them."""

from __future__ import annotations

from collections import Counter

from cloud.gate.evidence import Evidence, Finding


class GateSet:
    """At least `min_images`, of both kinds."""

    name = "gate_set"
    relative = False

    def judge(self, evidence: Evidence) -> Finding:
        n, defects = len(evidence.truth), int(evidence.defect.sum())
        counts = Counter(evidence.classes[c].name for c in evidence.truth)
        enough = n >= evidence.limits.min_images and 0 < defects < n
        text = f"{n} gate images, {defects} with a defect."
        if not enough:
            text += f" At least {evidence.limits.min_images} of both kinds are needed: import more for purpose gate."
        return Finding(self.name, enough, text, {"n": n, "defects": defects, "by_class": dict(counts)})
