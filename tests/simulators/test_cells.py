"""The four sets: whole blocks, disjoint, complete, the same for the same seed; and what bad data says."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from simulators.cells import (
    BLOCK,
    DEGRADED,
    MAX_IMBALANCE,
    SOUND,
    Cell,
    NoCells,
    of_kind,
    package_folder,
    read_cells,
    split,
)

SEEDS = [0, 1, 2, 3, 4, 7]


@pytest.fixture(scope="module")
def cells() -> tuple[Cell, ...]:
    return read_cells()


def test_the_package_holds_what_the_issue_says(cells: tuple[Cell, ...]) -> None:
    assert len(cells) == 2624
    assert len({cell.block for cell in of_kind(cells, "mono")}) == 19
    assert len({cell.block for cell in of_kind(cells, "poly")}) == 26
    assert [cell.index for cell in cells] == list(range(2624))


def test_blocks_are_contiguous_and_of_one_type(cells: tuple[Cell, ...]) -> None:
    for block in {cell.block for cell in cells}:
        members = [cell for cell in cells if cell.block == block]
        assert len(members) <= BLOCK
        assert len({cell.kind for cell in members}) == 1
        assert [cell.index for cell in members] == list(range(members[0].index, members[-1].index + 1))


def test_a_cell_is_defective_from_one_half(cells: tuple[Cell, ...]) -> None:
    labels = {round(cell.probability, 2): cell.label for cell in cells}
    assert labels == {0.0: "good", 0.33: "good", 0.67: "defective", 1.0: "defective"}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_group_is_in_two_sets(cells: tuple[Cell, ...], seed: int) -> None:
    sets = split(cells, seed=seed).by_name()
    for one, other in combinations(sets.values(), 2):
        assert not {cell.block for cell in one} & {cell.block for cell in other}
        assert not {cell.path for cell in one} & {cell.path for cell in other}
    assert sum(map(len, sets.values())) == len(cells)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_starting_model_never_sees_poly_and_the_stream_is_long_enough(cells: tuple[Cell, ...], seed: int) -> None:
    sets = split(cells, seed=seed)
    assert {cell.kind for cell in sets.base} == {"mono"}
    assert len(of_kind(sets.stream, "mono")) >= 120  # an hour of distinct parts; the second hour may show some again
    assert len(of_kind(sets.stream, "poly")) >= 720


@pytest.mark.parametrize("seed", SEEDS)
def test_every_set_has_a_degraded_module_and_few_mixed_ones(cells: tuple[Cell, ...], seed: int) -> None:
    for members in split(cells, seed=seed).by_name().values():
        for kind in ("mono", "poly"):
            blocks: dict[int, list[bool]] = {}
            for cell in of_kind(members, kind):
                blocks.setdefault(cell.block, []).append(cell.defective)
            shares = [sum(block) / len(block) for block in blocks.values()]
            assert not shares or max(shares) >= DEGRADED
            assert sum(SOUND <= share < DEGRADED for share in shares) <= max(1, len(shares) // 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_set_has_about_the_same_share_of_defects(cells: tuple[Cell, ...], seed: int) -> None:
    for members in split(cells, seed=seed).by_name().values():
        for kind in ("mono", "poly"):
            part, whole = of_kind(members, kind), of_kind(cells, kind)
            if part:
                share = sum(cell.defective for cell in part) / len(part)
                assert abs(share - sum(cell.defective for cell in whole) / len(whole)) <= MAX_IMBALANCE


def test_the_seed_decides_and_nothing_else(cells: tuple[Cell, ...]) -> None:
    assert split(cells, seed=3) == split(cells, seed=3)
    assert split(cells, seed=3) != split(cells, seed=4)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("images/a.png 1.0\n", "line 1: expected 'path probability type'"),
        ("images/a.png high mono\n", "line 1"),
        ("\nimages/a.png 2.0 mono\n", "line 2: unknown cell type or probability"),
        ("images/a.png 1.0 thin\n", "unknown cell type"),
        ("images/a.png 1.0 mono\n", "a.png is missing: reinstall"),
    ],
)
def test_a_damaged_table_is_one_clear_line(tmp_path: Path, table: str, text: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(NoCells, match=text):
        read_cells(tmp_path)


def test_too_few_blocks_are_refused(cells: tuple[Cell, ...]) -> None:
    with pytest.raises(NoCells, match="another release of the data set"):
        split(cells[:600], seed=0)


def test_images_are_the_300_pixel_originals() -> None:
    header = (package_folder() / "images" / "cell0001.png").read_bytes()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (300, 300)
