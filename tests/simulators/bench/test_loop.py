"""The loop bench with a pretended demo: its command line, its table, and runs that fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from simulators.bench.loop import Run, combine, document, flatten, goals, run_all, spawn


def pretend(arguments: Sequence[str]) -> int:
    """Seed 1 misses a check, seed 2 dies without figures."""
    words = list(arguments)
    seed, out = int(words[words.index("--seed") + 1]), Path(words[words.index("--json") + 1])
    assert words[3:5] == ["demo", "--exit"]
    assert words[words.index("--hours") + 1] == "8"
    if seed == 2:
        return 1
    figures = {"recovered": {"auroc": 0.9 + seed / 100, "note": "words"}, "hours": [1, 2], "ok": seed == 0}
    checks = [{"name": "nothing_lost", "ok": True}, {"name": "recovered_auroc", "ok": seed == 0}]
    out.write_text(json.dumps(figures | {"checks": checks} | ({"only_here": 3} if seed == 0 else {})))
    return 0 if seed == 0 else 1


def test_runs_are_read_and_put_side_by_side(tmp_path: Path) -> None:
    stale = tmp_path / "demo-seed-2.json"
    stale.write_text('{"recovered": {"auroc": 1.0}}')
    runs = run_all([0, 1, 2], hours=8, edges=3, folder=tmp_path, runner=pretend)
    assert [run.ok for run in runs] == [True, False, False]
    assert runs[1].failed == ("recovered_auroc",)
    assert runs[2].figures == {}, "the file of an earlier run is not this run's"
    rows = {row.name: row for row in combine(runs)}
    assert rows["recovered.auroc"].values == (pytest.approx(0.9), pytest.approx(0.91), None)
    assert rows["recovered.auroc"].mean == pytest.approx(0.905)
    assert rows["only_here"].values == (3.0, None, None)
    answer = document(runs)
    assert (answer["ok"], answer["exit_codes"]) == (False, [0, 1, 1])
    assert answer["failed"]["1"] == ["recovered_auroc"]


def test_a_file_that_is_no_json_counts_as_no_figures(tmp_path: Path) -> None:
    def broken(arguments: Sequence[str]) -> int:
        Path(list(arguments)[list(arguments).index("--json") + 1]).write_text("{")
        return 0

    (run,) = run_all([0], hours=8, edges=3, folder=tmp_path, runner=broken)
    assert not run.ok
    assert run.failed[0].startswith("no figures")


def test_flatten_keeps_numbers_only() -> None:
    assert flatten({"a": {"b": 1, "c": "x", "d": None}, "e": [1], "f": True}) == {"a.b": 1.0, "f": 1.0}


def test_spawn_returns_the_exit_code() -> None:
    assert spawn(["/bin/sh", "-c", "exit 3"]) == 3


def measured(seed: int, *, low: float, loop: float, joint: float, retuned: float = 0.05) -> Run:
    figures = {"test.forgetting_mono_balanced_accuracy.value": -0.01}
    for metric in ("balanced_accuracy", "auroc"):
        for model, value in (("collapsed", low), ("loop", loop), ("joint_reference", joint)):
            figures[f"test.poly.{model}.{metric}"] = value
    for rival, gain in (("always_pass", 0.2), ("threshold_retuned_only", retuned)):
        figures[f"test.gain_balanced_accuracy_over.{rival}.value"] = gain + 0.001 * seed
    return Run(seed, 0, figures, ())


def test_goals_weigh_seeds_by_their_gap() -> None:
    runs = [measured(0, low=0.5, loop=0.79, joint=0.8), measured(1, low=0.78, loop=0.77, joint=0.8)]
    found = {goal.name: goal for goal in goals(runs)}
    assert found["recovered balanced accuracy"].ok
    assert "87% of the gap" in found["recovered balanced accuracy"].measured
    assert found["mean loss on mono"].ok
    assert found["beats always pass"].ok


def test_goals_are_missed_where_the_evidence_is_missing() -> None:
    weak = [measured(s, low=0.5, loop=0.6, joint=0.8, retuned=(-1) ** s * 0.2) for s in range(3)]
    found = {goal.name: goal.ok for goal in goals([*weak, Run(4, 1, {}, ())])}
    assert not any(found.values())
    found = {goal.name: goal.ok for goal in goals(weak)}
    assert not found["recovered auroc"]
    assert not found["beats threshold retuned only"]
