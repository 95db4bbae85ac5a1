"""Two bases in turns: ratios, the bound, energy where it is counted, and comparisons that mean nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.cli import app
from models.nn import config as sizes
from models.nn.bench.against import Against, Side, check_alike, measure_against, text
from models.nn.bench.energy import PackageEnergy, Spent, spend
from models.nn.bench.measure import work
from models.nn.bench.ours import Frozen
from models.nn.bench.run import layers_in_one_file
from models.nn.build import build
from models.nn.config import preset, tiny, with_image_tokens
from tests.models.nn.toy import NOW

RUNNER = CliRunner()


def frozen(folder: Path, name: str, tokens: int | None = None) -> Frozen:
    config = tiny(name) if tokens is None else with_image_tokens(tiny(name), tokens)
    made = build(config, source=None, family="toy", version=1, seed=0, now=NOW).base
    return Frozen(made.manifest, made.write(folder / f"{name}-{tokens}"))


def side(tower: float, trunk: float, *, joules: float = math.nan) -> Side:
    return Side(
        "p", "none", "W8A8", 10**9, 10**9, 1.0, Spent(tower, tower / 1e3, joules), Spent(trunk, trunk / 1e3, joules)
    )


def powercap(root: Path, *packages: int, wrap: int = 1000) -> None:
    for number, value in enumerate(packages):
        for zone in (f"intel-rapl:{number}", f"intel-rapl:{number}:0"):
            (root / zone).mkdir(parents=True, exist_ok=True)
            (root / zone / "energy_uj").write_text(f"{value}\n")
            (root / zone / "max_energy_range_uj").write_text(f"{wrap}\n")


def test_both_sides_are_measured_on_the_same_pixels(tmp_path: Path) -> None:
    found = measure_against(frozen(tmp_path, "1.7b-moe"), frozen(tmp_path, "1.7b"), 1, 3)
    assert (found.ours.preset, found.other.preset) == ("1.7b-moe-tiny", "1.7b-tiny")
    for one in (found.ours, found.other):
        assert min(one.tower.ms, one.trunk.ms, one.load_s, one.size) > 0
        assert one.frame.ms == pytest.approx(one.tower.ms + one.trunk.ms)
    assert found.document()["ratios"]["trunk"]["time"] == pytest.approx(found.other.trunk.ms / found.ours.trunk.ms)


def test_no_trunk_however_fast_beats_the_bound() -> None:
    found = Against(1, 1, 144, side(1000, 200), side(1000, 1500))
    assert found.bound == pytest.approx(2.5)
    assert found.document()["ratios"]["frame"]["time"] == pytest.approx(2500 / 1200)
    free = Against(1, 1, 144, side(1000, 0), side(1000, 1500))
    assert free.other.frame.ms / free.ours.frame.ms == pytest.approx(free.bound)
    assert "with a trunk that costs nothing it would be 2.50 x faster; it is 2.08 x" in text(found)


def test_the_table_says_what_stands_for_energy() -> None:
    assert "RAPL cannot be read here" in text(Against(1, 1, 144, side(10, 2), side(10, 15)))
    counted = text(Against(1, 1, 144, side(10, 2, joules=1), side(10, 15, joules=4)))
    assert "RAPL" not in counted
    assert "| 75 % |" in counted


def test_bases_with_other_image_tokens_are_not_compared(tmp_path: Path) -> None:
    fewer = frozen(tmp_path, "1.7b", 4)
    with pytest.raises(ValueError, match=r"16 image tokens and 1\.7b-tiny 4: build both with the same"):
        check_alike(frozen(tmp_path, "1.7b-moe"), fewer)


def test_packages_are_added_and_a_wrap_is_no_negative_energy(tmp_path: Path) -> None:
    powercap(tmp_path, 900, 10)
    energy = PackageEnergy(tmp_path)
    before = energy.read()
    assert before == [900, 10]  # the packages, not their parts
    powercap(tmp_path, 99, 30)
    assert energy.between(before, energy.read()) == pytest.approx((200 + 20) / 1e6)


def test_where_nothing_is_counted_joules_are_unknown(tmp_path: Path) -> None:
    nothing = PackageEnergy(tmp_path)
    assert not nothing.counts
    assert math.isnan(spend(lambda: None, nothing).joules)
    powercap(tmp_path, 5)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("")
    assert not PackageEnergy(tmp_path).counts


def test_processor_seconds_are_those_of_the_call(tmp_path: Path) -> None:
    found = spend(lambda: sum(range(2_000_000)), PackageEnergy(tmp_path))
    assert 0 < found.cpu_s <= found.ms / 1e3 * 1.5 + 0.02


def test_the_work_of_a_mixture_counts_the_experts_a_token_meets() -> None:
    """By hand at 184 tokens: 5 mixtures of 12.2 M and one dense layer of 12.8 M multiply-adds a token, the trimmed last
    layer, attention 1 G.
    """
    config = replace(with_image_tokens(preset("1.7b-moe"), 144), prefix=32, suffix=8)
    millions = 184 * (5 * 12.19 + 12.85) + 144 * 2.1 + 184 * 3.15 + 145 * 1.05
    assert work(config).trunk == pytest.approx(2e-3 * millions + 1.0, rel=0.01)
    assert work(config).trunk < work(with_image_tokens(preset("1.7b"), 144)).trunk / 14


def test_peers_get_no_more_layers_than_one_file_holds() -> None:
    assert layers_in_one_file(preset("1.7b-moe").trunk) == 3
    assert layers_in_one_file(preset("1.7b").trunk) == 9
    assert layers_in_one_file(tiny("1.7b-moe").trunk) == 3


def test_the_command_compares_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1.7b", "1.7b-moe"):
        monkeypatch.setitem(sizes.PRESETS, f"{name}-tiny", tiny(name))
        assert RUNNER.invoke(app, ["build", "--preset", f"{name}-tiny", "--out", str(tmp_path / name)]).exit_code == 0
    pair = ["bench", str(tmp_path / "1.7b-moe"), "--against", str(tmp_path / "1.7b"), "--calls", "2", "--threads", "1"]
    done = RUNNER.invoke(app, [*pair, "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"][0]["ours"]["weights"] == "none: random weights, seed 0"
    assert found["rows"][0]["bound"] > 1
    printed = RUNNER.invoke(app, pair).stdout
    assert "1.7b-moe-tiny against 1.7b-tiny, 16 image tokens, 1 threads" in printed
    assert "routed experts int8" in printed
    missing = RUNNER.invoke(app, ["bench", str(tmp_path / "1.7b-moe"), "--against", str(tmp_path / "none")])
    assert missing.exit_code == 2
    assert "holds no finished model" in missing.stderr
