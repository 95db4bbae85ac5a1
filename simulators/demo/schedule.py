"""Which cell passes which camera at what time, and the truth about it, which no agent and no cloud ever reads.

The cells of an hour's type are shuffled once and dealt out in that order, so every hour is a fair sample of the
stream and no cell comes twice before all came once. Parts reach the cameras evenly over the hour, the boxes taking
turns. A serial is a running number: it says nothing about the cell.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.selector.pace import ENVELOPE_BYTES
from simulators.cells import Cell, CellType, of_kind
from simulators.demo.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Showing:
    """One part in front of one camera. `offset` is seconds after the start of hour 1; `seed` moves the picture."""

    serial: str
    edge: str
    hour: int
    offset: float
    cell: int
    kind: CellType
    label: str
    path: Path
    seed: int


def plan(scenario: Scenario, stream: Sequence[Cell]) -> list[Showing]:
    """Every part of the run in order of time; the same for the same scenario and cells."""
    decks = {kind: _Deck(of_kind(tuple(stream), kind), scenario.seed, kind) for kind in ("mono", "poly")}
    seeds = random.Random(f"edgeloop showings {scenario.seed}")
    names, showings = scenario.edge_names, []
    for hour in range(1, scenario.hours + 1):
        for place in range(scenario.parts_per_hour):
            cell = decks[scenario.kind(hour)].draw()
            showings.append(
                Showing(
                    serial=f"P{len(showings) + 1:06d}",
                    edge=names[place % scenario.edges],
                    hour=hour,
                    offset=(hour - 1 + (place + 0.5) / scenario.parts_per_hour) * scenario.hour_s,
                    cell=cell.index,
                    kind=cell.kind,
                    label=cell.label,
                    path=cell.path,
                    seed=seeds.getrandbits(31),
                )
            )
    return showings


class _Deck:
    """Cells in a seeded order, dealt again from the start when they run out."""

    def __init__(self, cells: Sequence[Cell], seed: int, kind: CellType) -> None:
        self._cells = list(cells)
        random.Random(f"edgeloop stream {seed} {kind}").shuffle(self._cells)
        self._next = 0

    def draw(self) -> Cell:
        cell = self._cells[self._next % len(self._cells)]
        self._next += 1
        return cell


def write_schedules(showings: Iterable[Showing], folder: Path, *, first: float) -> dict[str, Path]:
    """One JSON-lines file per box, as the simulated camera reads them; returns the files by box.

    Args:
        first: unix seconds at which hour 1 begins.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[str]] = {}
    for part in showings:
        row = {"serial": part.serial, "at": round(first + part.offset, 3), "path": str(part.path), "seed": part.seed}
        rows.setdefault(part.edge, []).append(json.dumps(row, separators=(",", ":")))
    files = {edge: folder / f"{edge}.jsonl" for edge in rows}
    for edge, file in files.items():
        file.write_text("\n".join(rows[edge]) + "\n")
    return files


def write_truth(showings: Iterable[Showing], path: Path) -> None:
    """The truth by serial as JSON lines: for the simulated reviewer and the final table, for nobody else."""
    path.write_text("".join(json.dumps({**asdict(part), "path": str(part.path)}) + "\n" for part in showings))


def read_truth(path: Path) -> dict[str, str]:
    """The right label by serial.

    Raises:
        OSError: the file cannot be read. ValueError: a line is no part; the text names it.
    """
    labels: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            labels[str(row["serial"])] = str(row["label"])
        except (ValueError, KeyError, TypeError) as fault:
            raise ValueError(f"{path}, line {number}: a part needs serial and label") from fault
    return labels


def bytes_per_hour(showings: Sequence[Showing], scenario: Scenario, *, frame_bytes: float) -> int:
    """A box's upload budget: `upload_share` of the bytes that all frames of an hour would take, envelopes included.

    Args:
        frame_bytes: mean size of an encoded frame.
    """
    frames = len(showings) / (scenario.edges * scenario.hours)
    return max(1, round(scenario.upload_share * frames * (frame_bytes + ENVELOPE_BYTES)))
