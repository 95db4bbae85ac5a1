"""Everything measured in one run, joined with the truth, under stable names: what ``--json`` writes.

Hours count from 1. Shares count distinct cells, not replays. A release belongs to the hour whose labels it learned
from: its seconds run from the last of those labels until every box has judged a part with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from simulators.demo.evaluate import TestTable
from simulators.demo.journal import Dropped, Entry, HourCounts, by_hour, dropped, live_at, swap_pause_ms
from simulators.demo.records import Given, Records, Rolled, Trained
from simulators.demo.scenario import Scenario
from simulators.demo.schedule import Showing

SCHEMA_VERSION = 1
RUNNING = frozenset({"probation", "committed"})
SECURITY = frozenset({"signature", "digest", "rollback", "tampered"})


@dataclass(frozen=True, slots=True)
class Estimate:
    """The dashboard's accuracy of one hour. `value` is None while there are not enough labels; `note` says so."""

    labels: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """What became of an hour's labels. `seconds_to_live` is None when no release of it went live on every box;
    `swap_pause_ms` is how long a part waited for its verdict where the boxes changed to it.
    """

    adapter_release: int
    state: str
    bytes: int
    release: int | None
    seconds_to_live: float | None
    swap_pause_ms: float | None


@dataclass(frozen=True, slots=True)
class HourFigures:
    """One row of the first table."""

    counts: HourCounts
    uploaded_share: float
    labelled_cells: int
    labels_given: int
    truth_accuracy: float | None
    estimate: Estimate
    learned: Learned | None


@dataclass(frozen=True, slots=True)
class Shares:
    """Distinct poly cells shown, uploaded and labelled, and the same over both types."""

    poly_shown: int
    poly_uploaded_share: float
    poly_labelled_share: float
    uploaded_share: float
    labelled_share: float


@dataclass(frozen=True, slots=True)
class Verified:
    """Releases that boxes ran, and how many of those were reported with exactly the published bytes."""

    releases_run: int
    pairs: int
    verified: int
    security_faults: int


@dataclass(frozen=True, slots=True)
class Account:
    """Samples of all boxes: ``selected = stored + pending + lost`` and nothing missing."""

    holds: bool
    stored: int
    pending: int
    lost: int
    missing: int


@dataclass(frozen=True, slots=True)
class Figures:
    """One run."""

    scenario: Scenario
    hours: Sequence[HourFigures]
    shares: Shares
    dropped: Dropped
    verified: Verified
    account: Account
    peak_rss_bytes: Mapping[str, int]
    test: TestTable
    seconds: Mapping[str, float]

    @property
    def frame_interval_ms(self) -> float:
        """Time between two parts at one camera."""
        return 1000.0 * self.scenario.hour_s * self.scenario.edges / self.scenario.parts_per_hour

    def document(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "scenario": asdict(self.scenario),
            "hours": [_hour_document(hour) for hour in self.hours],
            "shares": asdict(self.shares),
            "dropped_frames": asdict(self.dropped),
            "releases": asdict(self.verified),
            "samples": asdict(self.account),
            "agent_peak_rss_bytes": dict(self.peak_rss_bytes),
            "test": _test_document(self.test),
            "seconds": dict(self.seconds),
        }


def _hour_document(hour: HourFigures) -> dict[str, Any]:
    counts = hour.counts
    return {
        "hour": counts.hour,
        "cell_type": counts.kind,
        "parts": counts.scheduled,
        "frames": counts.frames,
        "judged": counts.judged,
        "uploaded_share": hour.uploaded_share,
        "labelled_cells": hour.labelled_cells,
        "labels_given": hour.labels_given,
        "accuracy_truth": hour.truth_accuracy,
        "accuracy_estimate": asdict(hour.estimate),
        "defects": counts.defects,
        "escapes": counts.escapes,
        "overkills": counts.overkills,
        "unsure": counts.unsure,
        "releases": list(counts.releases),
        "learned": None if hour.learned is None else asdict(hour.learned),
    }


def _test_document(test: TestTable) -> dict[str, Any]:
    return {
        "poly": {name: asdict(row) for name, row in test.rows.items()},
        "mono": {"start": asdict(test.mono_start), "loop": asdict(test.mono_loop)},
        "recovered": {"balanced_accuracy": test.recovered_balanced_accuracy, "auroc": test.recovered_auroc},
        "gain_balanced_accuracy_over": {name: asdict(interval) for name, interval in test.gains.items()},
        "gain_auroc_over_collapsed": asdict(test.auroc_gain),
        "forgetting_mono_balanced_accuracy": asdict(test.forgetting),
        "retuned_threshold": test.threshold,
    }


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen from outside: `first` is when hour 1 began, unix seconds."""

    first: float
    showings: Sequence[Showing]
    entries: Sequence[Entry]
    records: Records
    estimates: Mapping[int, Estimate]
    account: Account
    peak_rss_bytes: Mapping[str, int]


def figures(scenario: Scenario, seen: Observed, test: TestTable, *, seconds: Mapping[str, float]) -> Figures:
    """Join everything."""
    return Figures(
        scenario=scenario,
        hours=hours(scenario, seen),
        shares=shares(seen),
        dropped=dropped(seen.showings, seen.entries),
        verified=verified(seen.records, seen.entries),
        account=seen.account,
        peak_rss_bytes=seen.peak_rss_bytes,
        test=test,
        seconds=seconds,
    )


def hours(scenario: Scenario, seen: Observed) -> list[HourFigures]:
    """One row an hour."""
    parts = {part.serial: part for part in seen.showings}
    uploaded = _cells_by_hour(parts, (upload.serial for upload in seen.records.uploads))
    labelled = _cells_by_hour(parts, (given.serial for given in seen.records.labels))
    learned = learned_by_hour(scenario, seen)
    rows = []
    for counts in by_hour(seen.showings, seen.entries):
        begins = scenario.starts(seen.first, counts.hour)
        given = sum(begins <= label.at < begins + scenario.hour_s for label in seen.records.labels)
        cells = len({part.cell for part in seen.showings if part.hour == counts.hour})
        rows.append(
            HourFigures(
                counts=counts,
                uploaded_share=len(uploaded.get(counts.hour, ())) / cells,
                labelled_cells=len(labelled.get(counts.hour, ())),
                labels_given=given,
                truth_accuracy=counts.accuracy,
                estimate=seen.estimates.get(int(begins // scenario.hour_s), Estimate(0, note="no estimate")),
                learned=learned.get(counts.hour),
            )
        )
    return rows


def _cells_by_hour(parts: Mapping[str, Showing], serials: Any) -> dict[int, set[int]]:
    cells: dict[int, set[int]] = {}
    for serial in serials:
        if serial in parts:
            cells.setdefault(parts[serial].hour, set()).add(parts[serial].cell)
    return cells


def learned_by_hour(scenario: Scenario, seen: Observed) -> dict[int, Learned]:
    """The release made of each hour's labels; of two in one hour the later."""
    found: dict[int, Learned] = {}
    for one in seen.records.trained:
        last = _last_label(seen.records.labels, one)
        if last is not None:
            hour = int((last.at - seen.first) // scenario.hour_s) + 1
            found[hour] = _learned(scenario, seen, one, last)
    return found


def _last_label(labels: Sequence[Given], one: Trained) -> Given | None:
    if one.as_of is None:
        return None
    return max((label for label in labels if label.at <= one.as_of), key=lambda label: label.at, default=None)


def _learned(scenario: Scenario, seen: Observed, one: Trained, last: Given) -> Learned:
    rolled: Rolled | None = next((r for r in seen.records.rolled if r.adapter_release == one.release), None)
    live = None if rolled is None else live_at(seen.entries, rolled.number, scenario.edge_names)
    due = {part.serial: seen.first + part.offset for part in seen.showings}
    pause = None if rolled is None else swap_pause_ms(due, seen.entries, rolled.number, scenario.edge_names)
    return Learned(
        adapter_release=one.release,
        state=one.state,
        bytes=one.bytes,
        release=None if rolled is None else rolled.number,
        seconds_to_live=None if live is None else live - last.at,
        swap_pause_ms=pause,
    )


def shares(seen: Observed) -> Shares:
    """Distinct cells over the whole run."""
    parts = {part.serial: part for part in seen.showings}
    shown = {part.cell: part.kind for part in seen.showings}
    poly = {cell for cell, kind in shown.items() if kind == "poly"}
    uploaded = {parts[upload.serial].cell for upload in seen.records.uploads if upload.serial in parts}
    labelled = {parts[label.serial].cell for label in seen.records.labels if label.serial in parts}
    return Shares(
        poly_shown=len(poly),
        poly_uploaded_share=len(uploaded & poly) / max(1, len(poly)),
        poly_labelled_share=len(labelled & poly) / max(1, len(poly)),
        uploaded_share=len(uploaded) / max(1, len(shown)),
        labelled_share=len(labelled) / max(1, len(shown)),
    )


def verified(records: Records, entries: Sequence[Entry]) -> Verified:
    """Every (box, release) that judged a part must be in a signed report that names the published bytes as loaded."""
    ran = {(entry.edge, entry.release) for entry in entries if entry.release > 0}
    published = {rolled.number: rolled.adapter_sha for rolled in records.rolled}
    good = {
        (told.edge, told.release)
        for told in records.told
        if told.state in RUNNING and told.loaded is not None and told.loaded == published.get(told.release)
    }
    return Verified(
        releases_run=len({release for _, release in ran}),
        pairs=len(ran),
        verified=len(ran & good),
        security_faults=sum(told.reason in SECURITY for told in records.told),
    )


def account(document: Mapping[str, Any]) -> Account:
    """The conservation audit of the cloud in four numbers."""
    accounts = document["accounts"]
    return Account(
        holds=bool(document["holds"]) and bool(accounts),
        stored=sum(one["stored"] for one in accounts),
        pending=sum(one["pending"] for one in accounts),
        lost=sum(sum(one["lost"].values()) for one in accounts),
        missing=sum(last - first + 1 for one in accounts for first, last in one["missing"]),
    )
