"""What a person sees: steps of the setup, the hours as they pass, the tables and the checks at the end.

With a terminal the hours are one table that changes in place; without one, each hour is a line when it is over.
Progress goes to stderr: stdout holds the final tables, or the JSON document when it was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from simulators.demo.checks import Check
from simulators.demo.evaluate import Interval, Measures
from simulators.demo.figures import Estimate, Figures, HourFigures
from simulators.demo.scenario import Scenario
from simulators.demo.watch import Snapshot

NAMES = {
    "collapsed": "mono model, unchanged",
    "always_pass": "always pass",
    "threshold_retuned_only": "threshold re-tuned only",
    "loop": "edgeloop",
    "joint_reference": "joint reference (all poly labels)",
}
HOUR_COLUMNS = (
    "hour",
    "cells",
    "frames",
    "uploaded",
    "labels",
    "truth",
    "estimate",
    "escapes",
    "overkill",
    "unsure",
    "release",
    "adapter",
    "live in",
    "swap",
)
NONE = "-"


class Screen:
    """See the module."""

    def __init__(self, *, progress: Console, results: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._results, self._clock = progress, results, clock
        self._begun = clock()
        self._told = 0

    @property
    def is_terminal(self) -> bool:
        return self._progress.is_terminal

    def say(self, text: str) -> None:
        """One step of the setup, with the seconds since the start."""
        self._progress.print(
            f"[dim]{self._clock() - self._begun:6.1f} s[/dim]  {escape(text)}", highlight=False, soft_wrap=True
        )

    @contextmanager
    def hours(self, scenario: Scenario) -> Iterator[Callable[[Snapshot], None]]:
        """Gives the function that shows a snapshot."""
        if not self.is_terminal:
            yield lambda snapshot: self._tell_finished(scenario, snapshot)
            return
        with Live(console=self._progress, refresh_per_second=2, transient=True) as live:
            yield lambda snapshot: live.update(_running(scenario, snapshot))

    def _tell_finished(self, scenario: Scenario, snapshot: Snapshot) -> None:
        over = snapshot.hour if snapshot.hour == scenario.hours and snapshot.seconds_left <= 0 else snapshot.hour - 1
        for hour in range(self._told + 1, over + 1):
            self.say(_line(snapshot, hour))
        self._told = max(self._told, over)

    def results(self, run: Figures, found: Sequence[Check]) -> None:
        """The tables and the checks."""
        self._results.print(hours_table(run))
        self._results.print(models_table(run))
        self._results.print(checks_text(found))


def _line(snapshot: Snapshot, hour: int) -> str:
    counts = snapshot.hours[hour - 1]
    truth, estimate = counts.accuracy, snapshot.estimates.get(hour)
    releases = ", ".join(f"r{number}" for number in counts.releases)
    return (
        f"hour {hour} {counts.kind}: {counts.frames} parts, accuracy {percent(truth)} (estimate {_span(estimate)}), "
        f"{snapshot.uploads.get(hour, 0)} uploaded, {snapshot.labels.get(hour, 0)} labelled, {releases}"
    )


def _running(scenario: Scenario, snapshot: Snapshot) -> Group:
    table = Table(title="Hours", title_justify="left", box=SIMPLE_HEAD)
    for name in (
        "hour",
        "cells",
        "parts",
        "accuracy, truth",
        "accuracy, estimated",
        "uploaded",
        "labelled",
        "releases",
    ):
        table.add_column(name, justify="left" if name in ("cells", "releases") else "right")
    for counts in snapshot.hours[: snapshot.hour]:
        hour = counts.hour
        table.add_row(
            str(hour),
            counts.kind,
            f"{counts.frames}/{counts.scheduled}",
            percent(counts.accuracy),
            _span(snapshot.estimates.get(hour)),
            str(snapshot.uploads.get(hour, 0)),
            str(snapshot.labels.get(hour, 0)),
            ", ".join(f"r{number}" for number in counts.releases),
            style="bold" if hour == snapshot.hour else None,
        )
    boxes = "  ".join(f"{edge} r{release}" for edge, release in sorted(snapshot.releases.items()))
    where = f"hour {snapshot.hour} of {scenario.hours}" if snapshot.hour else "hour 1 begins"
    left = (
        f"{where}, {snapshot.seconds_left:.0f} s left" if snapshot.hour else f"{where} in {snapshot.seconds_left:.0f} s"
    )
    return Group(table, Text(f"{left} | {boxes} | {snapshot.open_tasks} samples wait for a label"))


def percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f} %"


def _span(one: Estimate | None) -> str:
    if one is None:
        return NONE
    if one.value is None or one.low is None or one.high is None:
        return one.note or NONE
    return f"{percent(one.value)} ({100 * one.low:.0f}-{100 * one.high:.0f})"


def hours_table(run: Figures) -> Table:
    """Per hour: what the line did, what was learned of it, and how fast."""
    table = Table(
        title="Hours (truth: the simulator's; estimate: the dashboard's, with its 95 % interval)",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in HOUR_COLUMNS:
        table.add_column(name, justify="left" if name in ("cells", "release") else "right")
    for hour in run.hours:
        table.add_row(*_hour_row(hour))
    return table


def _hour_row(hour: HourFigures) -> list[str]:
    counts, learned = hour.counts, hour.learned
    live = None if learned is None else learned.seconds_to_live
    pause = None if learned is None else learned.swap_pause_ms
    size = NONE if learned is None else f"{learned.bytes / 1e6:.2f} MB"
    return [
        str(counts.hour),
        counts.kind,
        str(counts.frames),
        percent(hour.uploaded_share),
        str(hour.labels_given),
        percent(hour.truth_accuracy),
        _span(hour.estimate),
        f"{counts.escapes} of {counts.defects}",
        f"{counts.overkills} of {counts.frames - counts.defects}",
        str(counts.unsure),
        ", ".join(f"r{number}" for number in counts.releases),
        size if learned is None or learned.state != "refused" else f"{size}, refused",
        NONE if live is None else f"{live:.1f} s",
        NONE if pause is None else f"{pause:.0f} ms",
    ]


def models_table(run: Figures) -> Table:
    """The test set, read once."""
    test = run.test
    cells = test.rows["loop"].cells
    table = Table(
        title=f"Test set: {cells} poly cells, {test.mono_loop.cells} mono cells, read once",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("model", "balanced accuracy", "AUROC", "escape", "overkill", "unsure", "gap recovered"):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    recovered = f"{_share(test.recovered_balanced_accuracy)} / {_share(test.recovered_auroc)}"
    for name, row in test.rows.items():
        table.add_row(f"poly: {NAMES[name]}", *_measures(row), recovered if name == "loop" else "")
    table.add_row("mono: start", *_measures(test.mono_start), "")
    table.add_row("mono: edgeloop", *_measures(test.mono_loop), "")
    for name, gain in test.gains.items():
        table.add_row(f"edgeloop over {NAMES[name]}", _gain(gain), "", "", "", "", "")
    table.add_row("edgeloop over unchanged, AUROC", "", _gain(test.auroc_gain), "", "", "", "")
    table.add_row("mono: edgeloop over start", _gain(test.forgetting), "", "", "", "", "")
    return table


def _measures(row: Measures) -> list[str]:
    shares = (row.balanced_accuracy, row.auroc, row.escape, row.overkill, row.unsure)
    return [f"{share:.3f}" if place < 2 else percent(share) for place, share in enumerate(shares)]


def _share(share: float | None) -> str:
    return "no gap" if share is None else f"{100 * share:.0f} %"


def _gain(one: Interval) -> str:
    return f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"


WORDS = {
    (True, True): ("ok", "green"),
    (True, False): ("FAIL", "bold red"),
    (False, True): ("met", "green"),
    (False, False): ("missed", "yellow"),
}


def checks_text(found: Sequence[Check]) -> Text:
    """One line a check, then one a target. The word says it, the colour only repeats it."""
    text = Text()
    for check in sorted(found, key=lambda one: not one.required):
        word, style = WORDS[check.required, check.ok]
        text.append(f"{word:<8}", style=style)
        text.append(f"{check.name.replace('_', ' ')}: {check.detail}\n")
    for kind, some in (("checks hold", True), ("targets met", False)):
        of = [check.ok for check in found if check.required is some]
        text.append(f"{sum(of)} of {len(of)} {kind}. " if of else "", style="bold")
    return text
