"""What the services answer, in the pages' own words: estimates, rollouts and gate reports.

The one place that knows the other rooms' answers. It adds nothing to a number; it only says which is which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloud.dashboard import words
from cloud.dashboard.i18n import Speech
from cloud.dashboard.words import N_
from cloud.db.tables import Candidate
from models.contracts.base import parse_as
from models.contracts.model_manifest import AdapterManifest


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PeriodAccuracy:
    """What is known of a period's truth; `labels` counts random ones.

    `accuracy`, `escape` (share of the defective parts that passed) and `overkill` (share of the good parts that were
    rejected) are None unless `status` is ``ok``. `escaped` and `overkilled` are shares of all parts: with them a page
    can speak of parts and money; None where the service does not estimate them. `unreported` boxes are missing in it.
    """

    period: int
    labels: int
    needed: int
    accuracy: Estimate | None
    escape: Estimate | None
    overkill: Estimate | None
    escaped: Estimate | None = None
    overkilled: Estimate | None = None
    status: str = "ok"
    mistake_rate: float | None = None
    unreported: Sequence[str] = ()


def accuracy(services: Any, line: str) -> dict[int, PeriodAccuracy]:
    """The line's accuracy by period."""
    return {one.period: one for one in map(_period, services.accuracy.by_period(line))}


def _period(found: Any) -> PeriodAccuracy:
    return PeriodAccuracy(
        period=found.period,
        labels=found.labels,
        needed=found.needed,
        accuracy=_estimate(found.accuracy),
        escape=_estimate(found.escape),
        overkill=_estimate(found.overkill),
        escaped=_estimate(found.escaped),
        overkilled=_estimate(found.overkilled),
        status=found.status,
        mistake_rate=found.mistake_rate,
        unreported=tuple(found.unreported),
    )


def _estimate(found: Any) -> Estimate | None:
    return None if found is None else Estimate(found.value, found.low, found.high)


@dataclass(frozen=True)
class BoxStanding:
    name: str
    state: str
    wave: int
    reason: str | None
    parts: int


@dataclass(frozen=True)
class Rollout:
    """A release and how far it has spread. The totals of all states sum to `total`."""

    number: int
    adapter: int
    state: str
    wave: int
    waves: int
    rollback_of: int | None
    actor: str
    reason: str | None
    created_at: int
    waiting_for: str
    totals: Mapping[str, int]
    total: int
    boxes: Sequence[BoxStanding]


def rollout(services: Any, line: str, number: int) -> Rollout:
    """One release with the rollout service's word on every box."""
    status = services.rollout.status(line, number)
    return Rollout(
        number=status.number,
        adapter=status.adapter_release,
        state="paused" if status.paused else status.state,
        wave=status.wave,
        waves=status.waves,
        rollback_of=status.rollback_of,
        actor=status.actor,
        reason=status.reason,
        created_at=status.created_at,
        waiting_for=status.waiting_for if status.state == "running" else "",
        totals={state: getattr(status.totals, state) for state in words.BOX_STATES},
        total=status.totals.boxes,
        boxes=[BoxStanding(box.edge, box.state, box.wave, box.reason, box.parts) for box in status.boxes],
    )


@dataclass(frozen=True)
class Figure:
    name: str
    candidate: str
    incumbent: str


@dataclass(frozen=True)
class RuleWord:
    """One rule's word: its title in the reader's language, the gate's own sentence with its numbers (English)."""

    title: str
    passed: bool
    text: str


@dataclass(frozen=True)
class CandidateReport:
    """An adapter and the gate's report on it, for reading."""

    release: int
    state: str
    about: str
    verdict: str
    rules: Sequence[RuleWord]
    figures: Sequence[Figure]

    @property
    def failed(self) -> Sequence[RuleWord]:
        return [rule for rule in self.rules if not rule.passed]

    @property
    def held(self) -> Sequence[RuleWord]:
        return [rule for rule in self.rules if rule.passed]


RULES = {
    "gate_set": N_("The gate’s images suffice to judge"),
    "usable_scores": N_("Every image can be judged"),
    "better_than_chance": N_("Better than chance"),
    "macro_f1": N_("Not worse than the one that runs"),
    "must_catch": N_("No must-catch part is newly missed"),
    "recall": N_("No class is forgotten"),
    "files": N_("A box can load its files"),
    "erosion": N_("Small losses do not add up"),
    "calibration": N_("Its confidence can be believed"),
    "size": N_("Small enough to send"),
    "latency": N_("Fast enough for the line"),
    "parity": N_("The exported files answer as the trained model did"),
    "different": N_("It changes something"),
}
FIGURES = {
    "n": N_("gate images"),
    "balanced_accuracy": N_("balanced accuracy"),
    "accuracy": N_("accuracy over classes"),
    "auroc": N_("AUROC"),
    "escape": N_("escape, of defective images"),
    "overkill": N_("overkill, of good images"),
    "unsure": N_("sent to a person"),
    "calibration_error": N_("calibration error"),
}
_PLAIN = frozenset({"n", "auroc"})


def candidate(speech: Speech, row: Candidate) -> CandidateReport:
    """A candidate as the page shows it; before the gate has spoken the report is empty."""
    manifest, report = parse_as(AdapterManifest, row.manifest), row.report
    size = sum({blob.sha256: blob.length for blob in manifest.blobs()}.values())
    about = [
        speech.date_time(row.created_at),
        speech.say_n("%(n)s label", "%(n)s labels", manifest.lineage.labels),
        speech.size(size),
    ]
    if row.parent is not None:
        about.append(speech.say("learned from adapter %(number)s", number=row.parent))
    findings = [RuleWord(_title(speech, one["rule"]), one["passed"], one["text"]) for one in report.get("findings", [])]
    return CandidateReport(
        release=row.release,
        state=row.state,
        about=" · ".join(about),
        verdict=_verdict(speech, report, findings),
        rules=findings,
        figures=_figures(speech, report),
    )


def _title(speech: Speech, rule: str) -> str:
    return words.word(speech, RULES, rule)


def _verdict(speech: Speech, report: Mapping[str, Any], findings: Sequence[RuleWord]) -> str:
    if not report:
        return speech.say("The gate has not judged it yet.")
    failed = sum(not finding.passed for finding in findings)
    if failed:
        return speech.say_n(
            "Refused: %(n)s of %(all)s rules does not hold.",
            "Refused: %(n)s of %(all)s rules do not hold.",
            failed,
            all=len(findings),
        )
    incumbent = report.get("incumbent")
    if incumbent:
        return speech.say(
            "Accepted: all %(all)s rules hold against adapter %(number)s.",
            all=len(findings),
            number=incumbent["release"],
        )
    return speech.say("Accepted as the line’s first release: all %(all)s rules hold.", all=len(findings))


def _figures(speech: Speech, report: Mapping[str, Any]) -> list[Figure]:
    mine = (report.get("candidate") or {}).get("all") or {}
    other = (report.get("incumbent") or {}).get("all") or {}
    return [
        Figure(speech.say(title), _figure(speech, key, mine.get(key)), _figure(speech, key, other.get(key)))
        for key, title in FIGURES.items()
        if key in mine
    ]


def _figure(speech: Speech, key: str, value: float | None) -> str:
    if key in _PLAIN:
        return speech.number(value, 0 if key == "n" else 3)
    return speech.percent(value)
