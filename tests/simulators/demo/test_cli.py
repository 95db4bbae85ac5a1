"""The command's words: usage errors, a full disk, a missing wheel, all one line and nothing left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

RUN = [sys.executable, "-c", "import sys; from models.dispatch import main; sys.exit(main())", "demo"]


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=90, check=False, env=env)


def test_help_names_every_option_of_the_readme() -> None:
    done = demo("--help")
    assert done.returncode == 0
    for option in ("--hours", "--edges", "--seed", "--json", "--exit", "--fresh", "--label-by-hand", "--port"):
        assert option in done.stdout


def test_an_impossible_scenario_is_a_usage_error(tmp_path: Path) -> None:
    done = demo("--hours", "2", "--work", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the change comes after hour 2" in done.stderr
    assert not (tmp_path / "demo").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = demo("--work", str(tmp_path / "file"))
    assert done.returncode == 1
    assert "choose another folder with --work" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "99999"), "--port"),
        (("--port", "-5"), "--port"),
        (("--json", "/nowhere/at/all.json"), "/nowhere/at"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(arguments: tuple[str, str], words: str, tmp_path: Path) -> None:
    done = demo(*arguments, "--work", str(tmp_path / "work"))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "work").exists()


@pytest.mark.servers
def test_a_taken_port_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = demo("--exit", "--port", str(port), "--work", str(tmp_path))
    assert done.returncode == 1
    assert f"port {port} for the dashboard is in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [child for child in psutil.Process().children(recursive=True) if "weed" in child.name()]


@pytest.mark.servers
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_no_process(tmp_path: Path, end: signal.Signals) -> None:
    """Stopped while its servers are up: 130, one line, and everything it started is gone."""
    run = subprocess.Popen([*RUN, "--exit", "--work", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    with run.stderr:
        for line in run.stderr:
            if "object store" in line:
                break
        started = psutil.Process(run.pid).children(recursive=True)
        time.sleep(0.5)
        run.send_signal(end)
        said = run.stderr.read()
    assert run.wait(60) == 130
    assert "interrupted; every process it started is stopped" in said
    assert "Traceback" not in said
    assert len(started) >= 2
    assert psutil.wait_procs(started, timeout=10)[1] == []
