"""Solar cells for the demo: reads the `elpv-dataset` package and cuts it into four sets that share no module.

The 2,624 electroluminescence images come as the package's own 300 px originals (CC BY-NC-SA 4.0: shown to people,
never copied into this repository). Only its text table and file paths are used here; nothing of it is imported, so
reading needs no pillow.

Modules are not named in the data. A module's cells follow each other, so a block of 60 cells inside a run of equal
cell type stands for one (19 mono and 26 poly blocks), and a block is in one set only:

    base    mono         trains the starting model
    stream  mono + poly  the only images that cameras show, and the only source of labels
    gate    mono + poly  thresholds, temperature, interpolation, acceptance
    test    mono + poly  read once, for the final table

Blocks are of three sorts: sound modules with a few defective cells, modules whose cells are nearly all defective
(`DEGRADED` of them or more), and a few mixed ones in between whose labels hardly show in the image. A plain draw may
put all of one sort into one set, which then measures something else than the others. The draw is therefore repeated
until every set's share of defects lies within `MAX_IMBALANCE` of its cell type's, every set has a degraded block, and
no set has a share of mixed blocks more than `MAX_MIXED` above its cell type's (rerandomization: Morgan and Rubin,
Annals of Statistics 40, 2012). The first draw that qualifies is taken; only labels decide, no model is asked.
"""

from __future__ import annotations

import importlib.util
import random
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

BLOCK = 60
DEFECT_FROM = 0.5
MAX_IMBALANCE = 0.08
MAX_MIXED = 0.15
DEGRADED = 0.7
SOUND = 0.3
MAX_DRAWS = 20_000
LICENCE = "CC BY-NC-SA 4.0"
CREDIT = (
    "Solar cells: elpv-dataset (Buerhop-Lutz, Deitsch, Maier, Gallwitz, Brabec and others, ZAE Bayern), "
    f"{LICENCE}: for demonstration and research, not for commercial use."
)

CellType = Literal["mono", "poly"]
SetName = Literal["base", "stream", "gate", "test"]
MONO_BLOCKS: dict[SetName, int] = {"base": 7, "stream": 4, "gate": 4, "test": 4}
POLY_BLOCKS: dict[SetName, int] = {"stream": 13, "gate": 6, "test": 7}


class NoCells(RuntimeError):
    """The images cannot be read. The text says what to install."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One image. `index` counts rows of the package's table from 0; `block` is unique over both cell types."""

    index: int
    path: Path
    kind: CellType
    probability: float
    block: int

    @property
    def defective(self) -> bool:
        """The label: a defect probability of one half or more, as annotated by experts."""
        return self.probability >= DEFECT_FROM

    @property
    def label(self) -> Literal["good", "defective"]:
        return "defective" if self.defective else "good"


@dataclass(frozen=True, slots=True)
class CellSets:
    """Four disjoint sets of whole blocks, in the package's order."""

    base: tuple[Cell, ...]
    stream: tuple[Cell, ...]
    gate: tuple[Cell, ...]
    test: tuple[Cell, ...]

    def by_name(self) -> dict[SetName, tuple[Cell, ...]]:
        return {"base": self.base, "stream": self.stream, "gate": self.gate, "test": self.test}


def of_kind(cells: tuple[Cell, ...], kind: CellType) -> tuple[Cell, ...]:
    """The cells of one type, order kept."""
    return tuple(cell for cell in cells if cell.kind == kind)


def package_folder() -> Path:
    """Where pip put the images and their table.

    Raises:
        NoCells: the package is not installed, or without its data.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise NoCells("the data set is not installed: pip install 'edgeloop[demo]'")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    if not (folder / "labels.csv").is_file():
        raise NoCells(f"{folder} has no labels.csv: reinstall with pip install --force-reinstall elpv-dataset")
    return folder


def read_cells(folder: Path | None = None) -> tuple[Cell, ...]:
    """Every cell of the package, with its block.

    Args:
        folder: holds ``labels.csv`` with rows ``path probability type``, separated by spaces.

    Raises:
        NoCells: not installed, or a row or an image is missing; the text names it.
    """
    folder = folder or package_folder()
    lines = (folder / "labels.csv").read_text().splitlines()
    rows = [_row(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    cells: list[Cell] = []
    block = -1
    for kind, run in groupby(rows, key=lambda row: row[2]):
        for place, (name, probability, _) in enumerate(run):
            block += place % BLOCK == 0
            path = folder / name
            if not path.is_file():
                raise NoCells(f"{path} is missing: reinstall with pip install --force-reinstall elpv-dataset")
            cells.append(Cell(index=len(cells), path=path, kind=kind, probability=probability, block=block))
    return tuple(cells)


def _row(line: str, number: int) -> tuple[str, float, CellType]:
    fields = line.split()
    try:
        name, probability, kind = fields[0], float(fields[1]), fields[2]
    except (IndexError, ValueError) as fault:
        raise NoCells(f"labels.csv, line {number}: expected 'path probability type', found {line[:60]!r}") from fault
    if kind not in ("mono", "poly") or not 0 <= probability <= 1:
        raise NoCells(f"labels.csv, line {number}: unknown cell type or probability in {line[:60]!r}")
    return name, probability, kind  # type: ignore[return-value]


def split(cells: tuple[Cell, ...], *, seed: int) -> CellSets:
    """Four disjoint sets of whole blocks; the same for the same seed.

    Raises:
        NoCells: too few blocks, or no balanced draw exists.
    """
    chosen: dict[SetName, set[int]] = {"base": set(), "stream": set(), "gate": set(), "test": set()}
    for kind, sizes in (("mono", MONO_BLOCKS), ("poly", POLY_BLOCKS)):
        rng = random.Random(f"edgeloop cells {seed} {kind}")
        for name, blocks in _draw(tuple(cell for cell in cells if cell.kind == kind), sizes, rng).items():
            chosen[name] |= blocks
    sets = {name: tuple(cell for cell in cells if cell.block in blocks) for name, blocks in chosen.items()}
    return CellSets(**sets)


def _draw(cells: tuple[Cell, ...], sizes: dict[SetName, int], rng: random.Random) -> dict[SetName, set[int]]:
    members: dict[int, list[Cell]] = {}
    for cell in cells:
        members.setdefault(cell.block, []).append(cell)
    if len(members) != sum(sizes.values()):
        raise NoCells(f"{len(members)} blocks, {sum(sizes.values())} expected: this is another release of the data set")
    order = sorted(members)
    whole = set(order)
    for _ in range(MAX_DRAWS):
        rng.shuffle(order)
        deck = iter(order)
        drawn: dict[SetName, set[int]] = {name: set(islice(deck, size)) for name, size in sizes.items()}
        if all(_alike(members, blocks, whole) for blocks in drawn.values()):
            return drawn
    raise NoCells(f"no draw of {MAX_DRAWS} gave sets with similar shares of defects")


def _alike(members: dict[int, list[Cell]], blocks: set[int], whole: set[int]) -> bool:
    shares = [_share(members, {block}) for block in blocks]
    mixed, all_mixed = ([SOUND <= _share(members, {b}) < DEGRADED for b in some] for some in (blocks, whole))
    return (
        abs(_share(members, blocks) - _share(members, whole)) <= MAX_IMBALANCE
        and max(shares) >= DEGRADED
        and sum(mixed) / len(mixed) <= sum(all_mixed) / len(all_mixed) + MAX_MIXED
    )


def _share(members: dict[int, list[Cell]], blocks: set[int]) -> float:
    cells = [cell for block in blocks for cell in members[block]]
    return sum(cell.defective for cell in cells) / len(cells)
