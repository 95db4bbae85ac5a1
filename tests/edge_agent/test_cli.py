from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from edge_agent.cli import app
from edge_agent.flags import FlagInbox
from tests.edge_agent.certificates import new_key, write_certificate, write_key
from tests.edge_agent.test_settings import MINIMAL

RUNNER = CliRunner()
START = "import sys; from edge_agent.cli import app; app(args=sys.argv[1:])"


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """`run` sets up logging for the whole process; here it must not outlive the test's captured stderr."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def config(folder: Path, **replace: str) -> Path:
    key = new_key()
    write_key(folder / "edge.key", key)
    write_certificate(folder / "edge.pem", key, "edge-1")
    (folder / "root.json").write_text('{"signed": {"_type": "root", "version": 1}, "signatures": []}')
    text = MINIMAL.replace("https://releases", "http://127.0.0.1:9").replace('host = "broker"', 'host = "127.0.0.1"')
    text = text.replace("port = 8883", "port = 9\ntls = false")
    for name in ("state", "ca.pem", "edge.pem", "edge.key", "root.json", "in"):
        text = text.replace(f'"{name}"', f'"{folder / name}"')
    for old, new in replace.items():
        text = text.replace(old, new)
    path = folder / "agent.toml"
    path.write_text(text + "\n[spool]\nballast_bytes = 0\nmin_free_bytes = 0\n")
    return path


def process(*arguments: str, code: str = START) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_until_told_to_stop_and_says_so_in_json(tmp_path: Path, number: signal.Signals) -> None:
    running = process("run", "--config", str(config(tmp_path)))
    lines = []
    for line in running.stderr:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "agent started":
            running.send_signal(number)
    assert running.wait(20) == 0
    running.stdout.close()
    running.stderr.close()
    assert lines[-1]["event"] == "agent stopped"
    assert {line["edge"] for line in lines} == {"edge-1"}
    assert json.loads((tmp_path / "state" / "slots.json").read_text())["running"] is False


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"[agent]": "[agent]\ncolour = 1"}, "agent.colour"),
        ({'edge = "edge-1"': 'edge = "edge-2"'}, "agent.edge"),
        ({'kind = "folder"': 'kind = "gige"'}, "cameras.cam-1.kind"),
        ({"root.json": "other.json"}, "release.root"),
        ({"http://127.0.0.1:9": "ftp://127.0.0.1:9"}, "release.url"),
        ({"[mqtt]": "[mqtt"}, "is not TOML"),
    ],
)
def test_a_bad_configuration_is_one_line_and_exit_2(tmp_path: Path, change: dict[str, str], says: str) -> None:
    result = RUNNER.invoke(app, ["run", "--config", str(config(tmp_path, **change))])
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_configuration_is_one_line_and_exit_2(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["config", "show", "-c", str(tmp_path / "nowhere.toml")])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_config_show_is_what_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP__AGENT__HOUR_S", "40")
    result = RUNNER.invoke(app, ["config", "show", "-c", str(config(tmp_path))])
    assert json.loads(result.stdout)["agent"]["hour_s"] == 40


def test_status_says_when_it_is_off_or_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path)
    assert RUNNER.invoke(app, ["status", "-c", str(path)]).exit_code == 2
    monkeypatch.setenv("EDGELOOP__STATUS__PORT", "9")
    result = RUNNER.invoke(app, ["status", "-c", str(path)])
    assert result.exit_code == 8
    assert "is the agent running" in result.stderr


def test_flag_leaves_a_request(tmp_path: Path) -> None:
    path = config(tmp_path)
    result = RUNNER.invoke(app, ["flag", "--serial", "s-1", "--reason", "missed", "--wait", "0", "-c", str(path)])
    assert result.exit_code == 0
    assert result.stdout == (
        "part s-1 is noted as: missed; the agent has not answered yet and takes the note when it runs\n"
    )
    (request,) = (tmp_path / "state" / "flags").iterdir()
    assert json.loads(request.read_text()) == {"serial": "s-1", "reason": "missed"}
    result = RUNNER.invoke(app, ["flag", "--serial", "s\u202e", "--reason", "x", "-c", str(path)])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "--serial: " in result.stderr


@pytest.mark.parametrize(
    ("sid", "code", "says"),
    [
        ("sample-9", 0, "part s-1 is flagged: missed (claimed: crack); its image is kept as sample sample-9"),
        (None, 1, "part s-1 is unknown"),
    ],
)
def test_flag_says_what_the_agent_made_of_it(tmp_path: Path, sid: str | None, code: int, says: str) -> None:
    path, inbox = config(tmp_path), FlagInbox(tmp_path / "state" / "flags")

    def agent() -> None:
        deadline = time.monotonic() + 10
        while not (waiting := inbox.waiting()) and time.monotonic() < deadline:
            time.sleep(0.02)
        inbox.done(waiting[0][0], sid=sid)

    answering = threading.Thread(target=agent)
    answering.start()
    options = ["--serial", "s-1", "--reason", "missed", "--claimed", "crack", "--wait", "10"]
    result = RUNNER.invoke(app, ["flag", *options, "-c", str(path)])
    answering.join(10)
    assert (result.exit_code, result.output.count("\n")) == (code, 1)
    assert says in result.output
    assert list((tmp_path / "state" / "flags").iterdir()) == []


def test_doctor_names_each_thing_that_is_wrong(tmp_path: Path) -> None:
    path = config(tmp_path, **{'kind = "folder"': 'kind = "gige"'})
    result = RUNNER.invoke(app, ["doctor", "--json", "-c", str(path)])
    found = {row["what"]: row for row in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert {what for what, row in found.items() if not row["ok"]} - {"processor"} == {"cameras", "broker", "repository"}
    assert "cores" in found["processor"]["detail"] or "VNNI" in found["processor"]["detail"]
    assert "gige" in found["cameras"]["detail"]
    assert "days" in found["identity"]["detail"]


def test_the_agent_imports_nothing_of_training_or_the_cloud() -> None:
    code = (
        "import sys; import edge_agent.app, edge_agent.cli, edge_agent.doctor; "
        "print([m for m in ('torch', 'fastapi', 'sqlalchemy', 'starlette', 'transformers', 'cloud', 'simulators') "
        "if m in sys.modules])"
    )
    looking = process(code=code)
    out, _ = looking.communicate(timeout=30)
    assert out.strip() == "[]"


def test_help_of_the_command_is_light() -> None:
    heavy = "('numpy', 'onnxruntime', 'cv2', 'tuf')"
    code = f"import sys; import edge_agent.cli; print([m for m in {heavy} if m in sys.modules])"
    looking = process(code=code)
    assert looking.communicate(timeout=30)[0].strip() == "[]"
