"""`edgeloop` loads only the role asked for, and says which extra a missing one needs, whenever that shows."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest

from models import dispatch

LATE = """
def app(args, prog_name):
    import a_package_of_the_extra
"""
EARLY = "import a_package_of_the_extra"
OWN = """
def app(args, prog_name):
    import cloud.nothing_here
"""
QUITS = """
def app(args, prog_name):
    print(prog_name, *args)
    raise SystemExit(int(args[0]))
"""


def role(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
    (folder / "role_under_test.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "role_under_test", raising=False)
    return EntryPoint("cloud", "role_under_test:app", dispatch.GROUP)


@pytest.mark.parametrize("code", [EARLY, LATE])
def test_a_missing_extra_is_one_clear_message(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch.run("cloud", [], point=role(tmp_path, code, monkeypatch)) == 1
    said = capsys.readouterr().err
    assert "'a_package_of_the_extra' is not installed" in said
    assert "pip install 'edgeloop[cloud]'" in said


def test_a_missing_file_of_ours_is_a_bug_and_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing_here"):
        dispatch.run("cloud", [], point=role(tmp_path, OWN, monkeypatch))


def test_the_roles_exit_code_comes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch.run("cloud", ["8"], point=role(tmp_path, QUITS, monkeypatch)) == 8
    assert capsys.readouterr().out == "edgeloop cloud 8\n"


def test_usage_names_every_role(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch.main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in dispatch.SUMMARIES)
    assert dispatch.main(["nonsense"]) == dispatch.USAGE_ERROR
    assert "no command 'nonsense'" in capsys.readouterr().err
    assert dispatch.main(["--version"]) == 0
    assert version("edgeloop") in capsys.readouterr().out
