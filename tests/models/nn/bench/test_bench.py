"""The bench on a toy base: every figure is there, children are clean, faults are said."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from models.cli import app
from models.nn import config as sizes
from models.nn.bench.child import NotHere, in_child
from models.nn.bench.levers import Lever, Levers, rank_name
from models.nn.bench.measure import Work, latency, resident_mb, work
from models.nn.bench.ours import Frozen, _Judges, measure_base, measure_swaps
from models.nn.bench.peers import PeerRow, measure_peers, slice_of
from models.nn.bench.table import Bench, Machine, text
from models.nn.bench.variants import OURS_NAME, REFERENCE, UNTRIMMED, VARIANTS
from models.nn.build import build
from models.nn.checkpoint import load_checkpoint
from models.nn.config import preset, tiny, with_image_tokens
from models.runtime.bundle import read_base
from tests.models.nn.toy import NOW

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    made = build(tiny("1.7b"), source=None, family="toy", version=1, seed=0, now=NOW).base
    return Frozen(made.manifest, made.write(tmp_path_factory.mktemp("base")))


def refuses() -> None:
    raise NotHere("no such runtime")


def breaks() -> None:
    raise ZeroDivisionError("by zero")


def dies() -> None:
    os._exit(9)


def test_a_child_that_measures_a_base_has_no_torch_in_its_memory() -> None:
    code = "import sys; from models.nn.bench import child, ours, variants; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def speaks() -> str:
    print("a quantizer's table")
    return "done"


def test_what_a_child_prints_is_not_in_the_document(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_child(speaks) == "done"
    assert "table" not in capfd.readouterr().out


def test_a_child_says_how_it_ended() -> None:
    with pytest.raises(NotHere, match="no such runtime"):
        in_child(refuses)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: by zero"):
        in_child(breaks)
    with pytest.raises(RuntimeError, match="ended with code 9"):
        in_child(dies)


def test_a_base_is_measured_whole(frozen: Frozen) -> None:
    row = measure_base(frozen, tiny("1.7b"), 1, 2, 3)
    for one in (row.tower, row.trunk, row.adapted):
        assert 0 < one.p50 <= one.p95
        assert one.calls == 3
    assert row.load_s > 0
    assert row.ceiling_gflops > 0
    assert row.resident_mb == pytest.approx(resident_mb(), rel=0.5)


def test_swaps_under_load_give_no_wrong_result(frozen: Frozen) -> None:
    found = measure_swaps(frozen, 1, 60)
    assert found.swaps == 60
    assert found.frames >= found.threads == 3
    assert (found.wrong, found.dropped) == (0, 0)
    assert found.cpu_ms < 5
    assert found.cpu_ms <= found.longest_ms + 1
    assert found.idle_ms > 0


def test_a_frame_without_a_result_is_counted(frozen: Frozen) -> None:
    judges = _Judges(frozen.open(1), np.zeros((1, 3, 5), dtype=np.float32), {}, [], 1)
    with pytest.raises(InvalidArgument):
        judges._judge(0)
    assert (judges.begun, judges.done) == ([1], [0])


def test_latency_leaves_the_warming_out() -> None:
    calls: list[int] = []
    found = latency(lambda: calls.append(1), calls=4, warm=2)
    assert (len(calls), found.calls) == (6, 4)


def test_the_work_of_the_large_preset_is_the_known_one() -> None:
    """DeepSeek-VL-1.3B's geometry counted by hand: linears 348 G in the tower, 1,519 and 453 G in 24 layers of 616 and
    184 tokens; attention 33 G, and 75 and 7 G; the last layer behind its attention is one token's.
    """
    for tokens, trunk in ((576, 1519 + 75), (144, 453 + 7)):
        config = with_image_tokens(preset("1.7b"), tokens)
        config = replace(config, prefix=32, suffix=8)
        found = work(config)
        assert found.tower == pytest.approx(348 + 33, rel=0.01)
        assert found.trunk == pytest.approx(trunk, rel=0.04)
    assert work(preset("nano")).tower == 0


def test_peers_run_on_the_same_slice_and_errors_are_against_float32() -> None:
    made = build(tiny("1.7b"), source=None, family="toy", version=1, seed=0, now=NOW)
    trunk, config = slice_of(made.model, 1)
    tokens = np.random.default_rng(0).normal(0, 1, (1, 16, config.tower.width)).astype(np.float32)
    dynamic = "onnxruntime quantize_dynamic"
    wanted = (OURS_NAME, dynamic, dynamic + UNTRIMMED, "torch eager float32", REFERENCE)
    rows = {row.variant: row for row in measure_peers(trunk, config, tokens, threads=1, calls=2, variants=wanted)}
    assert all(row.latency is not None for row in rows.values()), [row.note for row in rows.values()]
    assert all(row.ratio > 0 for row in rows.values())
    assert rows[REFERENCE].error == 0
    assert rows[dynamic + UNTRIMMED].error < 0.1
    assert rows["torch eager float32"].error < 1e-4
    assert 0 < rows[OURS_NAME].error < 0.05


def test_a_peer_that_is_not_installed_is_a_row_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    made = build(tiny("1.7b"), source=None, family="toy", version=1, seed=0, now=NOW)
    trunk, config = slice_of(made.model, 1)
    tokens = np.zeros((1, 16, config.tower.width), dtype=np.float32)
    (row,) = measure_peers(trunk, config, tokens, threads=1, calls=1, variants=("OpenVINO default",))
    assert (row.latency is None) == bool(row.note)
    assert math.isnan(row.error)
    assert isinstance(row, PeerRow)


def test_every_variant_has_a_name_of_its_own() -> None:
    assert {OURS_NAME, REFERENCE} < set(VARIANTS)


def test_the_command_prints_a_table_and_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sizes.PRESETS, "1.7b-tiny", tiny("1.7b"))
    assert RUNNER.invoke(app, ["build", "--preset", "1.7b-tiny", "--out", str(tmp_path / "base")]).exit_code == 0
    few = ["--threads", "1", "--calls", "2", "--swaps", "0", "--layers", "0"]
    done = RUNNER.invoke(app, ["bench", str(tmp_path / "base"), *few, "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["weights"] == read_base(tmp_path / "base")[0].pretrained
    assert found["rows"][0]["trunk"]["p50"] > 0
    assert (found["swaps"], found["peers"]) == (None, [])
    printed = RUNNER.invoke(app, ["bench", str(tmp_path / "base"), *few])
    assert "none: random weights" in printed.stdout


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lose(path: Path) -> None:
    model = load_checkpoint(path)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "trunk.aligner.fc1.bias"}
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(state, path, metadata=metadata)


@pytest.mark.parametrize("damage", [cut, lose, Path.unlink])
def test_a_damaged_checkpoint_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setitem(sizes.PRESETS, "1.7b-tiny", tiny("1.7b"))
    assert RUNNER.invoke(app, ["build", "--preset", "1.7b-tiny", "--out", str(tmp_path / "base")]).exit_code == 0
    damage(tmp_path / "base" / "checkpoint.safetensors")
    done = RUNNER.invoke(app, ["bench", str(tmp_path / "base"), "--threads", "1"])
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert f"the checkpoint in {tmp_path / 'base'} is damaged" in line
    assert "make the folder again" in line


def test_levers_and_ranks_are_printed_with_their_shares() -> None:
    saved = [Lever("last-layer trim", 3.0, 0.02, 5.0, 0.025), Lever(rank_name(8), -9.0, -0.06, -12.0, -0.06)]
    levers = Levers(6, 2, 150.0, 200.0, saved)
    here = Machine("a processor", "VNNI", 2, {})
    bench = Bench(here, "1.7b", "none", 144, Work(1, 1), [], None, [], levers, 2, 6)
    printed = text(bench)
    assert "| last-layer trim | 3.0 | 2.0 % | 5.0 | 2.5 % |" in printed
    assert "| no LoRA of rank 8 | -9.0 | -6.0 % | -12.0 | -6.0 % |" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--threads", "two"], "whole numbers"),
        (["--threads", ","], "whole numbers"),
        (["--batch", "0"], "whole numbers"),
        (["--batch", ",,"], "whole numbers"),
        (["--calls", "0"], "calls"),
        (["--against", "b", "--batch", "1"], "--batch is not measured with --against"),
        (["--against", "b", "--swaps", "0"], "--swaps is not measured with --against"),
        (["--against", "b", "--layers", "6"], "--layers is not measured with --against"),
    ],
)
def test_wishes_that_make_no_sense_are_usage_errors(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "complete").touch()
    done = RUNNER.invoke(app, ["bench", str(tmp_path), *arguments])
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["bench", str(tmp_path)])
    assert done.exit_code == 2
    assert "holds no finished model" in done.stderr
