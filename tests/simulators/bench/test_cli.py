"""``edgeloop bench``: exit codes, tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from simulators.bench.cli import app

runner = CliRunner()


def test_a_small_run_prints_its_tables_and_misses_the_number_of_hours(tmp_path: Path) -> None:
    out = tmp_path / "accuracy.json"
    found = runner.invoke(app, ["accuracy", "--seeds", "100", "--lines", "2", "--processes", "1", "--json", str(out)])
    assert found.exit_code == 1
    assert "MISSED" in found.output
    answer = json.loads(out.read_text())
    assert answer["schema_version"] == 1
    assert [one["regime"] for one in answer["summaries"]] == ["calibrated", "miscalibrated", "collapsed", "all"]
    assert not answer["ok"]
    assert not {goal["name"]: goal["ok"] for goal in answer["targets"]}["hours"]


def test_json_on_stdout_is_only_json() -> None:
    found = runner.invoke(app, ["accuracy", "--seeds", "100", "--lines", "1", "--processes", "1", "--json", "-"])

    def no_json(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    assert json.loads(found.stdout, parse_constant=no_json)["seeds"] == [100]


def test_bad_seeds_and_unwritable_files_are_usage_errors(tmp_path: Path) -> None:
    for seeds in ("x", "", "1,,2", "-1"):
        found = runner.invoke(app, ["accuracy", "--seeds", seeds])
        assert found.exit_code == 2
    target = str(tmp_path / "missing" / "a.json")
    found = runner.invoke(app, ["accuracy", "--seeds", "100", "--lines", "1", "--processes", "1", "--json", target])
    assert found.exit_code == 2
    assert "cannot be written" in found.output
