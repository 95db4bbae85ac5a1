"""What the boxes wrote down about every part, joined with the truth by part serial.

The truth is known to the schedule alone. A forced call is right when it agrees with the truth about "defect"; a part
that could not be judged has no call and is counted apart.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from simulators.demo.scenario import DEFECTIVE, GOOD
from simulators.demo.schedule import Showing

LATE = "late"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a journal. `captured_at` in unix seconds."""

    edge: str
    serial: str
    captured_at: float
    verdict: str
    predicted: str | None
    cannot_judge: str | None
    release: int
    latency_ms: float
    sid: str | None


@dataclass(frozen=True, slots=True)
class HourCounts:
    """One hour of all boxes. `accuracy` is None when nothing was judged."""

    hour: int
    kind: str
    scheduled: int
    frames: int
    judged: int
    right: int
    defects: int
    escapes: int
    overkills: int
    unsure: int
    kept_cells: int
    releases: tuple[int, ...]

    @property
    def accuracy(self) -> float | None:
        return self.right / self.judged if self.judged else None


class Journals:
    """Follows the boxes' journals as they grow; a line that is still being written is read the next time."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files, self._read = dict(files), dict.fromkeys(files, 0)
        self.entries: list[Entry] = []

    def poll(self) -> list[Entry]:
        """The new lines of all boxes.

        Raises:
            ValueError: a line is not a journal's.
        """
        fresh: list[Entry] = []
        for edge, path in self._files.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._read[edge])
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read[edge] += len(whole)
            fresh += [_entry(edge, line) for line in whole.splitlines() if line.strip()]
        self.entries += fresh
        return fresh


def _entry(edge: str, line: bytes) -> Entry:
    try:
        row = json.loads(line)
        return Entry(
            edge=edge,
            serial=row["serial"],
            captured_at=datetime.fromisoformat(row["captured_at"]).timestamp(),
            verdict=row["verdict"],
            predicted=row["predicted"],
            cannot_judge=row["cannot_judge"],
            release=row["release"],
            latency_ms=row["latency_ms"],
            sid=row["sid"],
        )
    except (ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"journal of {edge}: not a journal's line: {line[:80]!r}") from fault


def by_hour(showings: Sequence[Showing], entries: Iterable[Entry]) -> list[HourCounts]:
    """Every hour of the plan, in order."""
    parts = {part.serial: part for part in showings}
    joined: dict[int, list[tuple[Showing, Entry]]] = defaultdict(list)
    for entry in entries:
        if entry.serial in parts:
            part = parts[entry.serial]
            joined[part.hour].append((part, entry))
    scheduled = Counter(part.hour for part in showings)
    kinds = {part.hour: part.kind for part in showings}
    return [_counts(hour, kinds[hour], scheduled[hour], joined[hour]) for hour in sorted(scheduled)]


def _counts(hour: int, kind: str, scheduled: int, rows: Sequence[tuple[Showing, Entry]]) -> HourCounts:
    judged = [(part, entry) for part, entry in rows if entry.cannot_judge is None and entry.predicted is not None]
    return HourCounts(
        hour=hour,
        kind=kind,
        scheduled=scheduled,
        frames=len(rows),
        judged=len(judged),
        right=sum((entry.predicted == DEFECTIVE) == (part.label == DEFECTIVE) for part, entry in judged),
        defects=sum(part.label == DEFECTIVE for part, _ in rows),
        escapes=sum(part.label == DEFECTIVE and entry.verdict == "pass" for part, entry in rows),
        overkills=sum(part.label == GOOD and entry.verdict == "reject" for part, entry in rows),
        unsure=sum(entry.verdict == "unsure" for _, entry in rows),
        kept_cells=len({part.cell for part, entry in rows if entry.sid is not None}),
        releases=tuple(sorted({entry.release for _, entry in rows})),
    )


@dataclass(frozen=True, slots=True)
class Dropped:
    """Parts that passed a camera and got no verdict in time."""

    missing: int
    twice: int
    late: int

    @property
    def total(self) -> int:
        return self.missing + self.twice + self.late


def dropped(showings: Sequence[Showing], entries: Iterable[Entry]) -> Dropped:
    """Every scheduled serial must be in the journals exactly once, judged in time."""
    rows = list(entries)
    seen = Counter(entry.serial for entry in rows)
    return Dropped(
        missing=sum(part.serial not in seen for part in showings),
        twice=sum(seen[part.serial] > 1 for part in showings),
        late=sum(entry.cannot_judge == LATE for entry in rows),
    )


def live_at(entries: Iterable[Entry], release: int, edges: Sequence[str]) -> float | None:
    """Unix seconds at which every box had judged a part with `release` or a later one; None when one never did."""
    first: dict[str, float] = {}
    for entry in entries:
        if entry.release >= release:
            first[entry.edge] = min(entry.captured_at, first.get(entry.edge, entry.captured_at))
    return max(first.values()) if set(edges) <= set(first) else None


def swap_pause_ms(
    due: Mapping[str, float], entries: Iterable[Entry], release: int, edges: Sequence[str]
) -> float | None:
    """How long the line waited where the boxes changed to `release` or a later one, in milliseconds.

    Of every box the last part before the change and the first after it: the longest time from the moment the part was
    `due` at the camera (unix seconds by serial) to its verdict. None when no box changed.
    """
    waits: list[float] = []
    for edge in edges:
        rows = sorted(
            (one for one in entries if one.edge == edge and one.serial in due), key=lambda one: one.captured_at
        )
        first = next((i for i, one in enumerate(rows) if one.release >= release), None)
        if first is not None:
            around = rows[max(0, first - 1) : first + 1]
            waits += [1000 * (one.captured_at - due[one.serial]) + one.latency_ms for one in around]
    return max(waits, default=None)
