"""What the plant and line pages say: which numbers stand where, what is abnormal, and in which words.

Pure: rows and estimates in, plain objects out, the clock an argument. Abnormal means: accuracy's interval lies wholly
below that of the best period shown; no sample for two periods; a box offline. Everything else is grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cloud.dashboard.i18n import Speech
from cloud.dashboard.queries import LineState, PeriodParts
from cloud.dashboard.sources import Estimate, PeriodAccuracy
from cloud.db.tables import Line, Release

QUIET_PERIODS = 2
SPARK_WIDTH, SPARK_HEIGHT, SPARK_PAD = 200.0, 60.0, 4.0


@dataclass(frozen=True)
class CostRow:
    """One kind of mistake: its rate, and about how many parts it was."""

    kind: str
    rate: Estimate | None
    parts: float | None


@dataclass(frozen=True)
class PeriodRow:
    """One period of a line, everything known about it."""

    period: int
    starts_at: int
    label: str
    parts: int
    uploaded: int
    labelled: int
    rejected: int
    unsure: int
    accuracy: PeriodAccuracy | None
    release: int | None

    @property
    def value(self) -> Estimate | None:
        return self.accuracy.accuracy if self.accuracy else None

    @property
    def escape(self) -> Estimate | None:
        return self.accuracy.escape if self.accuracy else None

    @property
    def overkill(self) -> Estimate | None:
        return self.accuracy.overkill if self.accuracy else None

    @property
    def costs(self) -> tuple[CostRow, CostRow]:
        """Escape and overkill, with the number of parts where the service estimates it."""
        known = self.accuracy
        return (
            CostRow("escape", self.escape, self._count(known.escaped if known else None)),
            CostRow("overkill", self.overkill, self._count(known.overkilled if known else None)),
        )

    def _count(self, share: Estimate | None) -> float | None:
        return None if share is None else share.value * self.parts

    @property
    def coverage(self) -> float | None:
        """Share of the period's parts that a person judged."""
        return self.labelled / self.parts if self.parts else None


@dataclass(frozen=True)
class Alarm:
    """Something abnormal, in words. `grade` is ``bad`` or ``warn``."""

    grade: str
    text: str


@dataclass(frozen=True)
class LinePicture:
    """A line as the plant and line pages show it."""

    line: Line
    state: LineState
    rows: Sequence[PeriodRow]
    releases: Sequence[Release]
    alarms: Sequence[Alarm]
    age_s: float | None

    @property
    def live(self) -> Release | None:
        """The newest release that reached every box, else the newest."""
        return next((release for release in self.releases if release.live_at), None)

    @property
    def judged(self) -> PeriodRow | None:
        """The newest period with enough labels."""
        return next((row for row in reversed(self.rows) if row.value), None)

    @property
    def newest(self) -> PeriodRow | None:
        return self.rows[-1] if self.rows else None

    @property
    def few(self) -> PeriodRow | None:
        """A period newer than the judged one that has too few labels to say anything."""
        newest = self.newest
        return newest if newest and newest.accuracy and not newest.value else None

    @property
    def grade(self) -> str:
        return "bad" if any(alarm.grade == "bad" for alarm in self.alarms) else "warn" if self.alarms else ""


def period_label(speech: Speech, starts_at: int, hour_s: float) -> str:
    """When a period began: to the minute for real hours, to the second for compressed ones."""
    return f"{speech.moment(starts_at):{'%H:%M' if hour_s % 60 == 0 else '%H:%M:%S'}}"


def release_at(releases: Sequence[Release], moment: int) -> int | None:
    """The number of the newest release that was live everywhere at `moment`."""
    live = [release for release in releases if release.live_at is not None and release.live_at <= moment]
    return max((release.number for release in live), default=None)


def period_rows(
    speech: Speech,
    line: Line,
    parts: Sequence[PeriodParts],
    accuracy: Mapping[int, PeriodAccuracy],
    *,
    uploaded: Mapping[int, int],
    labelled: Mapping[int, int],
    releases: Sequence[Release],
) -> list[PeriodRow]:
    """One row per period that has aggregates, oldest first."""
    return [
        PeriodRow(
            period=one.period,
            starts_at=one.starts_at,
            label=period_label(speech, one.starts_at, line.hour_s),
            parts=one.parts,
            uploaded=uploaded.get(one.period, 0),
            labelled=labelled.get(one.period, 0),
            rejected=one.rejected,
            unsure=one.unsure,
            accuracy=accuracy.get(one.period),
            release=release_at(releases, one.ends_at),
        )
        for one in parts
    ]


def picture(
    speech: Speech, line: Line, state: LineState, rows: Sequence[PeriodRow], releases: Sequence[Release], *, now: int
) -> LinePicture:
    """Put a line's picture together and say what is abnormal about it."""
    age_s = None if state.stored_at is None else (now - state.stored_at) / 1e6
    alarms = [
        *_accuracy_alarm(speech, rows),
        *_age_alarm(speech, line, age_s),
        *_box_alarm(speech, state),
    ]
    return LinePicture(line, state, rows, releases, alarms, age_s)


def _accuracy_alarm(speech: Speech, rows: Sequence[PeriodRow]) -> list[Alarm]:
    judged = [row.value for row in rows if row.value]
    if len(judged) < 2:
        return []
    best = max(judged[:-1], key=lambda estimate: estimate.low)
    if judged[-1].high >= best.low:
        return []
    drop = speech.say(
        "Accuracy fell: %(now)s after %(best)s", now=speech.percent(judged[-1].value), best=speech.percent(best.value)
    )
    return [Alarm("bad", drop)]


def _age_alarm(speech: Speech, line: Line, age_s: float | None) -> list[Alarm]:
    if age_s is None or age_s <= QUIET_PERIODS * line.hour_s:
        return []
    return [Alarm("warn", speech.say("No sample for %(duration)s", duration=speech.duration(age_s)))]


def _box_alarm(speech: Speech, state: LineState) -> list[Alarm]:
    missing = state.boxes - state.boxes_online
    if missing <= 0:
        return []
    return [Alarm("warn", speech.say_n("%(n)s box offline", "%(n)s boxes offline", missing))]


def positions(rows: Sequence[PeriodRow], releases: Sequence[Release], hour_s: float) -> list[tuple[float, Release]]:
    """Where releases went live on an axis on which period i spans i - 0.5 .. i + 0.5, oldest first."""
    found = []
    for release in releases:
        if release.live_at is None or not rows or release.live_at < rows[0].starts_at:
            continue
        before = max(i for i, row in enumerate(rows) if row.starts_at <= release.live_at)
        share = min((release.live_at - rows[before].starts_at) / 1e6 / hour_s, 1.0)
        found.append((before - 0.5 + share, release))
    return sorted(found, key=lambda pair: pair[0])


def series(speech: Speech, picture: LinePicture) -> dict[str, object]:
    """The chart's data: x is the place of the period, None is a gap (not enough labels)."""
    rows = picture.rows
    return {
        "x": list(range(len(rows))),
        "value": [row.value.value if row.value else None for row in rows],
        "low": [row.value.low if row.value else None for row in rows],
        "high": [row.value.high if row.value else None for row in rows],
        "labels": [row.label for row in rows],
        "tips": [_tip(speech, row) for row in rows],
        "releases": [
            {"x": round(x, 3), "label": _release_label(speech, release)}
            for x, release in positions(rows, picture.releases, picture.line.hour_s)
        ],
    }


def _release_label(speech: Speech, release: Release) -> str:
    if release.rollback_of is not None:
        return speech.say("release %(number)s (rollback)", number=release.number)
    return speech.say("release %(number)s", number=release.number)


def _tip(speech: Speech, row: PeriodRow) -> list[str]:
    lines = [row.label, accuracy_words(speech, row)]
    lines.append(speech.say_n("%(n)s part", "%(n)s parts", row.parts))
    if row.release is not None:
        lines.append(speech.say("release %(number)s", number=row.release))
    return lines


def accuracy_words(speech: Speech, row: PeriodRow) -> str:
    """Accuracy with its interval, or why there is none."""
    if row.value:
        value, interval = speech.percent(row.value.value), span(speech, row.value)
        return speech.say("%(value)s (%(interval)s)", value=value, interval=interval)
    if row.accuracy:
        return not_enough(speech, row.accuracy)
    return speech.say("no estimate yet")


def not_enough(speech: Speech, accuracy: PeriodAccuracy) -> str:
    """Why a period has no estimate."""
    if accuracy.status == "reviewers_unreliable":
        rate = speech.percent(accuracy.mistake_rate)
        return speech.say("reviewers err too often to tell: %(rate)s on control parts", rate=rate)
    return speech.say("not enough labels: %(have)s of %(need)s", have=accuracy.labels, need=accuracy.needed)


def span(speech: Speech, estimate: Estimate) -> str:
    """A 95 % interval of shares."""
    return f"{speech.percent(estimate.low)} – {speech.percent(estimate.high)}"


@dataclass(frozen=True)
class Spark:
    """Paths of a small chart in a 200 x 60 box."""

    trends: Sequence[str]
    bands: Sequence[str]
    dots: Sequence[tuple[float, float]]
    marks: Sequence[float]


def spark(picture: LinePicture) -> Spark:
    """The card's small chart: runs of judged periods, gaps where labels were too few."""
    rows = picture.rows
    step = (SPARK_WIDTH - 2 * SPARK_PAD) / max(len(rows) - 1, 1)
    floor = min([row.value.low for row in rows if row.value] + [0.8])

    def y(share: float) -> float:
        return round(SPARK_PAD + (1 - share) / max(1 - floor, 1e-9) * (SPARK_HEIGHT - 2 * SPARK_PAD), 1)

    points = [(round(SPARK_PAD + i * step, 1), row.value) for i, row in enumerate(rows) if row.value]
    runs = _runs([i for i, row in enumerate(rows) if row.value], points)
    return Spark(
        trends=[_path([(x, y(value.value)) for x, value in run]) for run in runs if len(run) > 1],
        bands=[
            _path([(x, y(value.high)) for x, value in run] + [(x, y(value.low)) for x, value in reversed(run)]) + "Z"
            for run in runs
            if len(run) > 1
        ],
        dots=[(x, y(value.value)) for x, value in (points[-1:] if points else [])],
        marks=[round(SPARK_PAD + x * step, 1) for x, _ in positions(rows, picture.releases, picture.line.hour_s)],
    )


def _runs(places: Sequence[int], points: Sequence[tuple[float, Estimate]]) -> list[list[tuple[float, Estimate]]]:
    """Split points where a place is missing between two of them."""
    cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(places)) if b - a > 1), len(points)]
    return [list(points[a:b]) for a, b in pairwise(cuts) if b > a]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x},{y}" for x, y in points)
