"""``edgeloop bench``: exit codes, tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--edges", "0"), "--edges"),
        (("--edges", "-1"), "--edges"),
        (("--edges", "33"), "edges is 33: choose 1 to 32"),
        (("--hours", "0"), "--hours"),
        (("--hours", "-8"), "--hours"),
        (("--hours", "3"), "hours is 3"),
        (("--hours", "1001"), "hours is 1001"),
        (("--seeds", "-1"), "--seeds '-1'"),
        (("--seeds", "0,x"), "--seeds '0,x'"),
        (("--seeds", "1,1"), "names a seed twice"),
        (("--seeds", "2147483648"), "seed is 2147483648"),
        (("--json", "/nowhere/at/all.json"), "correct --json"),
    ],
)
def test_numbers_that_no_demo_can_have_start_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, str], says: str
) -> None:
    started: list[int] = []
    monkeypatch.setattr("simulators.bench.loop.run_all", lambda seeds, **_: started.extend(seeds))
    found = runner.invoke(app, ["loop", "--folder", str(tmp_path / "kept"), *options])
    assert (found.exit_code, started) == (2, [])
    assert says in found.stderr
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = runner.invoke(app, ["loop", "--folder", str(tmp_path / "file" / "kept")])
    assert (found.exit_code, found.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "options", [("--lines", "0"), ("--lines", "-3"), ("--processes", "-1"), ("--processes", "5000"), ("--seeds", "1,1")]
)
def test_numbers_that_the_accuracy_bench_cannot_have_start_nothing(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, str]
) -> None:
    started: list[int] = []
    monkeypatch.setattr("simulators.bench.accuracy.run", lambda seeds, **_: started.extend(seeds))
    found = runner.invoke(app, ["accuracy", *options])
    assert (found.exit_code, started) == (2, [])
    assert options[0] in found.stderr


def test_bad_seeds_and_unwritable_files_are_usage_errors(tmp_path: Path) -> None:
    for seeds in ("x", "", "1,,2", "-1"):
        found = runner.invoke(app, ["accuracy", "--seeds", seeds])
        assert found.exit_code == 2
    target = str(tmp_path / "missing" / "a.json")
    found = runner.invoke(app, ["accuracy", "--seeds", "100", "--lines", "1", "--processes", "1", "--json", target])
    assert found.exit_code == 2
    assert "cannot be written" in found.output
