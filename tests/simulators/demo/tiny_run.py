"""A tiny finished run with known figures: three hours, two boxes, twelve parts. Built fresh, so tests may bend it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.contracts.model_manifest import Thresholds
from simulators.demo.evaluate import Interval, Measures, TestTable
from simulators.demo.figures import Account, Estimate, Figures, Observed, figures
from simulators.demo.journal import Entry
from simulators.demo.records import Given, Records, Rolled, Told, Trained, Upload
from simulators.demo.scenario import Scenario
from simulators.demo.schedule import Showing

FIRST = 40_000.0
SCENARIO = Scenario(hours=3, change_after=1, edges=2, parts_per_hour=4)
SHA = "a" * 64


def showing(number: int, hour: int, label: str) -> Showing:
    offset = (hour - 1) * 40 + 10 * ((number - 1) % 4) + 5.0
    kind = SCENARIO.kind(hour)
    edge = SCENARIO.edge_names[number % 2]
    return Showing(f"P{number:06d}", edge, hour, offset, 100 + number, kind, label, Path("x.png"), number)


SHOWINGS = [
    showing(number, 1 + (number - 1) // 4, "defective" if number in (2, 3, 6, 10) else "good")
    for number in range(1, 13)
]


def entry(part: Showing, *, verdict: str, predicted: str | None, release: int = 1, sid: str | None = None) -> Entry:
    return Entry(
        edge=part.edge,
        serial=part.serial,
        captured_at=FIRST + part.offset,
        verdict=verdict,
        predicted=predicted,
        cannot_judge=None if predicted else "too_dark",
        release=release,
        latency_ms=20.0,
        sid=sid,
    )


def observed() -> Observed:
    """Hour 1: one escape. Hour 2: release 2 goes live on both boxes. Hour 3: all right."""
    calls = {2: ("pass", "good"), 5: ("reject", "defective"), 8: ("unsure", None)}
    entries = []
    for number, part in enumerate(SHOWINGS, 1):
        right = ("reject" if part.label == "defective" else "pass", part.label)
        verdict, predicted = calls.get(number, right)
        kept = f"sid-{number}" if number in (2, 6) else None
        entries.append(entry(part, verdict=verdict, predicted=predicted, release=2 if number > 6 else 1, sid=kept))
    return Observed(
        first=FIRST,
        showings=SHOWINGS,
        entries=entries,
        records=records(),
        estimates={
            1000: Estimate(labels=24, value=0.8, low=0.6, high=0.9),
            1001: Estimate(labels=3, note="not enough"),
        },
        account=Account(holds=True, stored=2, pending=0, lost=0, missing=0),
        peak_rss_bytes={"edge-1": 200_000_000, "edge-2": 210_000_000},
    )


def records() -> Records:
    told = [
        Told(edge, "committed", release, SHA, None, FIRST + 40 * release)
        for release in (1, 2)
        for edge in SCENARIO.edge_names
    ]
    return Records(
        uploads=[Upload("sid-2", "P000002", "edge-1", FIRST + 16), Upload("sid-6", "P000006", "edge-1", FIRST + 56)],
        labels=[Given("sid-2", "P000002", "defective", "simulated reviewer", "estimate", FIRST + 38)],
        trained=[
            Trained(1, "published", None, 0, 900_000, FIRST - 20, {}),
            Trained(2, "published", FIRST + 41, 1, 1_500_000, FIRST + 50, {}),
        ],
        rolled=[
            Rolled(1, 1, SHA, "complete", FIRST - 20, FIRST - 5),
            Rolled(2, 2, SHA, "complete", FIRST + 51, FIRST + 60),
        ],
        told=told,
    )


def measured(balanced: float, auroc: float) -> Measures:
    return Measures(cells=400, balanced_accuracy=balanced, auroc=auroc, escape=0.1, overkill=0.1, unsure=0.2)


def tested() -> TestTable:
    return TestTable(
        rows={
            "collapsed": measured(0.5, 0.55),
            "always_pass": measured(0.5, 0.5),
            "threshold_retuned_only": measured(0.55, 0.55),
            "loop": measured(0.80, 0.85),
            "joint_reference": measured(0.82, 0.88),
        },
        mono_start=measured(0.86, 0.9),
        mono_loop=measured(0.85, 0.9),
        recovered_balanced_accuracy=0.94,
        recovered_auroc=0.91,
        gains={"always_pass": Interval(0.3, 0.25, 0.35), "threshold_retuned_only": Interval(0.25, 0.2, 0.3)},
        auroc_gain=Interval(0.3, 0.25, 0.35),
        forgetting=Interval(-0.01, -0.04, 0.02),
        threshold=0.3,
        thresholds=Thresholds(pass_below=0.3, reject_above=0.7, call_at=0.5),
    )


def finished(seen: Observed | None = None, test: TestTable | None = None, *, by_hand: bool = False) -> Figures:
    return figures(
        replace(SCENARIO, label_by_hand=by_hand), seen or observed(), test or tested(), seconds={"hours": 120.0}
    )
