"""The gate's report: every rule's word in a person's language, both models' figures, and the decision.

A report is kept for ever with its candidate, accepted or not, so it holds everything needed to judge the judgement.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cloud.gate.evidence import Evidence, Finding, Judged, gate_set_name
from cloud.gate.metrics import (
    UnknownMetric,
    accuracy,
    auroc,
    balanced_accuracy,
    debiased_calibration_error2,
    escape_rate,
    macro_f1,
    overkill_rate,
    recalls,
    signed_root,
)
from cloud.gate.rules import RULES

SCHEMA = 1


def judge(evidence: Evidence) -> list[Finding]:
    """Every rule that applies, in the table's order. A gate set that cannot judge is the only finding."""
    findings: list[Finding] = []
    for rule in RULES:
        if rule.relative and evidence.incumbent is None:
            continue
        findings.append(rule.judge(evidence))
        if rule.name == "gate_set" and not findings[-1].passed:
            break
    return findings


def figures(evidence: Evidence, judged: Judged, rows: np.ndarray) -> dict[str, float | None]:
    """One model's figures on the images `rows`; None where there is no data."""
    calls, truth, defect = judged.calls, evidence.truth[rows], evidence.defect[rows]
    classes = len(evidence.classes)
    predicted, fine = calls.predicted[rows], calls.judged[rows]
    right = calls.called_defect[rows] == defect
    squared = debiased_calibration_error2(calls.confidence[rows][fine], right[fine])
    called = np.where(fine, calls.called_defect[rows].astype(np.int64), -1)
    found = {
        "n": float(len(truth)),
        "accuracy": accuracy(truth, predicted),
        "balanced_accuracy": balanced_accuracy(defect.astype(np.int64), called, 2),
        "macro_f1": macro_f1(truth, predicted, classes),
        "auroc": auroc(defect[fine], calls.defect_score[rows][fine]),
        "escape": escape_rate(defect, calls.passed[rows]),
        "overkill": overkill_rate(defect, calls.rejected[rows]),
        "unsure": float(np.mean(~calls.passed[rows] & ~calls.rejected[rows])) if len(truth) else math.nan,
        "calibration_error": signed_root(squared) if math.isfinite(squared) else math.nan,
    }
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def metric(report: dict[str, Any], name: str) -> float | None:
    """One of the candidate's figures over all images, from a report.

    Raises:
        UnknownMetric: no such figure; a misspelt name must never read as "fine".
    """
    candidate = report["candidate"]["all"]
    if name not in candidate:
        raise UnknownMetric(f"no metric {name!r}; there are: {', '.join(sorted(candidate))}")
    value: float | None = candidate[name]
    return value


def build(evidence: Evidence, findings: list[Finding]) -> dict[str, Any]:
    """The report. `summary` is one sentence, `findings` has every rule's text and numbers."""
    refused = [finding for finding in findings if not finding.passed]
    if refused:
        summary = "Refused: " + " ".join(f"[{finding.rule}] {finding.text}" for finding in refused)
    elif evidence.incumbent is None:
        summary = f"Accepted as the line's first release: all {len(findings)} rules hold."
    else:
        summary = f"Accepted: all {len(findings)} rules hold against release {evidence.incumbent.release}."
    return {
        "schema": SCHEMA,
        "accepted": not refused,
        "summary": summary,
        "findings": [
            {"rule": f.rule, "passed": f.passed, "text": f.text, "numbers": clean(f.numbers)} for f in findings
        ],
        "candidate": _sides(evidence, evidence.candidate),
        "incumbent": None if evidence.incumbent is None else _sides(evidence, evidence.incumbent),
        "gate_set": {
            "n": len(evidence.truth),
            "sha256": gate_set_name(evidence.digests, evidence.truth),
        },
        "limits": evidence.limits.model_dump(mode="json"),
    }


def _sides(evidence: Evidence, judged: Judged) -> dict[str, Any]:
    found: dict[str, Any] = {"release": judged.release}
    for where, mask in evidence.slices().items():
        found[where] = figures(evidence, judged, np.flatnonzero(mask))
    values = recalls(evidence.truth, judged.calls.predicted, len(evidence.classes))
    found["recall"] = {c.name: clean(float(v)) for c, v in zip(evidence.classes, values, strict=True)}
    return found


def clean(value: Any) -> Any:
    """JSON without NaN or numpy types: what has no number is null."""
    if isinstance(value, dict):
        return {str(key): clean(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [clean(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
