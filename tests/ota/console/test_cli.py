"""The operator's commands against a fake cloud: output, exit codes, confirmations. Golden files hold every document."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from ota.cli import PASSPHRASE_ENV, _expected, app
from ota.console.terminal import Console, faults
from tests.ota.kit import T0, Plant

GOLDEN = Path(__file__).parent / "golden"
MICRO = 1_000_000
START = int(T0.timestamp()) * MICRO


def release(number: int, state: str = "complete", **changes: Any) -> dict[str, Any]:
    return {
        "line": "cells", "number": number, "adapter_release": number, "adapter_sha": "a" * 64,
        "model_version": f"cells-{number}", "rollback_of": None, "state": state, "paused": False, "wave": 0, "waves": 2,
        "actor": "maria", "reason": "hourly", "created_at": START + number * 3600 * MICRO, "finished_at": None,
        "live_at": None, **changes,
    }  # fmt: skip


def status(number: int, state: str = "complete", *, failed: int = 0, **changes: Any) -> dict[str, Any]:
    second = "failed" if failed else "pending"
    boxes = [
        {"edge": "edge-1", "state": "ok", "wave": 0, "reason": None, "since": START, "parts": 40},
        {"edge": "edge-2", "state": second, "wave": 1, "reason": None, "since": None, "parts": 0},
    ]  # fmt: skip
    totals = {"ok": 1, "failed": failed, "pending": 1 - failed, "offline": 0, "excluded": 0, "boxes": 2}
    extra = {"totals": totals, "boxes": boxes, "waiting_for": "wave 2"}
    return {**release(number, state), **extra, **changes}


class Cloud:
    """Answers by method and path, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        edge = {
            "name": "edge-1", "line": "cells", "status": "online", "seen_at": START, "release": 3,
            "update_state": "committed", "epoch": None, "certified": True, "heartbeat": {},
        }  # fmt: skip
        candidate = {"release": 2, "state": "published", "size": 123_456, "model_version": "cells-2"}
        self.answers: dict[str, Any] = {
            "GET /api/v1/lines/cells/releases": [release(3), release(2), release(1)],
            "GET /api/v1/lines/cells/releases/3": status(3),
            "GET /api/v1/lines/cells/candidates/2": candidate,
            "GET /api/v1/lines/cells/candidates/4": {**candidate, "release": 4, "state": "accepted"},
            "GET /api/v1/fleet": {"as_of": START, "edges": [edge, {**edge, "name": "edge-2"}], "ingest": {}},
            "POST /api/v1/lines/cells/releases": release(4, "running"),
            "POST /api/v1/lines/cells/rollback": release(4, "running", adapter_release=2, rollback_of=3),
            "POST /api/v1/lines/cells/releases/3/pause": release(3, "running", paused=True),
            "POST /api/v1/lines/cells/releases/3/resume": release(3, "running"),
            "POST /api/v1/lines/cells/releases/3/abort": release(3, "aborted"),
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.path, body))
        answer = self.answers.get(f"{request.method} {request.url.path}")
        if answer is None:
            answer = problem(404, "not_found", "There is no such thing.")
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, list) and answer and isinstance(answer[0], httpx.Response):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, httpx.Response):
            return answer
        if isinstance(answer, list) and "limit" in request.url.params:
            answer = answer[: int(request.url.params["limit"])]
        return httpx.Response(200, json=answer)

    @property
    def changes(self) -> list[tuple[str, str, Any]]:
        return [asked for asked in self.asked if asked[0] != "GET"]


def problem(status: int, code: str, detail: str) -> httpx.Response:
    document = {"type": f"about:blank#{code}", "code": code, "status": status, "detail": detail}
    return httpx.Response(status, json=document, headers={"content-type": "application/problem+json"})


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def ota(cloud: Cloud) -> Callable[..., Result]:
    def run(command: str, *, typed: str | None = None, **fields: Any) -> Result:
        time = iter(range(0, 10_000, 10))
        console = Console(
            transport=httpx.MockTransport(cloud),
            sleep=lambda _: None,
            monotonic=lambda: float(next(time)),
            now=lambda: T0,
            interactive=lambda: typed is not None,
            **fields,
        )
        return CliRunner().invoke(app, command.split(" "), obj=console, input=typed)

    return run


def golden(name: str, text: str) -> None:
    """Compare with the stored document. EDGELOOP_WRITE_GOLDEN=1 writes it, for a new one only."""
    path = GOLDEN / f"{name}.json"
    found = [json.loads(line) for line in text.splitlines()]
    if os.environ.get("EDGELOOP_WRITE_GOLDEN") and not path.exists():
        path.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    assert found == json.loads(path.read_text())
    assert all(document["schema_version"] == 1 for document in found)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("release_list", "release list --line cells"),
        ("release_show", "release show 3 --line cells"),
        ("release_create", "release create --line cells --adapter 4 --reason better --yes"),
        ("release_create_dry", "release create --line cells --adapter 4 --reason better --dry-run"),
        ("rollout_status", "rollout status --line cells"),
        ("rollout_watch", "rollout watch --line cells"),
        ("rollout_pause", "rollout pause --line cells --reason wait"),
        ("rollout_resume", "rollout resume --line cells --reason go"),
        ("rollout_abort", "rollout abort --line cells --reason bad --yes"),
        ("rollback", "rollback --line cells --to 2 --reason bad --yes"),
        ("rollback_dry", "rollback --line cells --to 2 --reason bad --dry-run"),
        ("device_list", "device list"),
        ("history", "history --line cells"),
        ("history_at", "history --line cells --at 2026-03-02T10:30:00"),
    ],
)
def test_documents_are_for_ever(ota: Callable[..., Result], name: str, command: str) -> None:
    result = ota(f"{command} --json")
    assert result.exit_code == 0, result.stderr
    golden(name, result.stdout)
    assert result.stderr == ""


def test_a_person_reads_tables(ota: Callable[..., Result]) -> None:
    assert "1 ok + 0 failed + 1 pending + 0 offline + 0 excluded = 2" in ota("rollout status --line cells").stdout
    assert "edge-2" in ota("device list").stdout
    assert "wave 1 of 2" in ota("rollout status --line cells").stdout
    assert "2026-03-02 11:00:00Z" in ota("release list --line cells").stdout


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(401, "unauthenticated", "Sign in first."), 7),
        (problem(403, "forbidden", "Not yours."), 7),
        (problem(404, "not_found", "There is no line."), 3),
        (problem(409, "rollout_in_flight", "Wait."), 4),
        (problem(409, "not_accepted", "The gate refused it."), 5),
        (problem(422, "invalid", "Bad."), 2),
        (problem(500, "bug", "Broken."), 1),
        (problem(503, "away", "Later."), 8),
        (httpx.Response(502, text="<html>"), 8),
        (httpx.Response(200, text="<html>"), 1),
        (httpx.ConnectError("refused"), 8),
        (httpx.ReadTimeout("slow"), 8),
    ],
)
def test_exit_codes(ota: Callable[..., Result], cloud: Cloud, answer: Any, code: int) -> None:
    cloud.answers["GET /api/v1/lines/cells/releases"] = answer
    result = ota("release list --line cells --json")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("edgeloop ota: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_token_is_sent_and_never_shown(cloud: Cloud) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return problem(401, "unauthenticated", "no")

    runner = CliRunner(env={"EDGELOOP_TOKEN": "s3cret", "EDGELOOP_URL": "https://cloud.plant"})
    result = runner.invoke(app, ["device", "list"], obj=Console(transport=httpx.MockTransport(answer)))
    assert seen == ["Bearer s3cret"]
    assert "s3cret" not in result.output


def test_a_refused_token_says_so_and_where_one_comes_from() -> None:
    console = Console(transport=httpx.MockTransport(lambda _: problem(401, "unauthenticated", "no")))
    runner = CliRunner(env={"EDGELOOP_TOKEN": "s3cret", "EDGELOOP_URL": "https://cloud.plant:8443"})
    refused = runner.invoke(app, ["device", "list"], obj=console)
    assert (refused.exit_code, refused.stderr) == (
        7,
        "edgeloop ota: the token was not accepted by https://cloud.plant:8443: correct --token or EDGELOOP_TOKEN; an "
        "administrator makes one with `edgeloop cloud token create` and puts its digest into cloud.toml\n",
    )
    missing = CliRunner().invoke(app, ["device", "list"], obj=console)
    assert missing.exit_code == 7
    assert "asks for a token: give --token or EDGELOOP_TOKEN" in missing.stderr


def test_a_token_that_cannot_be_sent_is_one_line() -> None:
    console = Console(transport=httpx.MockTransport(lambda _: httpx.Response(500)))
    for token in ("t\u00f6ken", "two\nlines"):
        result = CliRunner(env={"EDGELOOP_TOKEN": token}).invoke(app, ["device", "list"], obj=console)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.exception
        assert "--token or EDGELOOP_TOKEN" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "release create --line cells --adapter 4 --reason r",
        "rollout abort --line cells --reason r",
        "rollback --line cells --to 2 --reason r",
    ],
)
class TestConfirmation:
    def test_nobody_there_fails_and_never_hangs(self, ota: Callable[..., Result], cloud: Cloud, command: str) -> None:
        result = ota(command)
        assert result.exit_code == 4
        assert "--yes" in result.stderr
        assert not cloud.changes

    def test_the_lines_name_goes_on(self, ota: Callable[..., Result], cloud: Cloud, command: str) -> None:
        assert ota(command, typed="cells\n").exit_code == 0
        assert len(cloud.changes) == 1

    @pytest.mark.parametrize("typed", ["cell\n", "y\n", "\n", ""])
    def test_anything_else_does_not(self, ota: Callable[..., Result], cloud: Cloud, command: str, typed: str) -> None:
        assert ota(command, typed=typed).exit_code == 4
        assert not cloud.changes

    def test_a_dry_run_asks_nothing_and_changes_nothing(
        self, ota: Callable[..., Result], cloud: Cloud, command: str
    ) -> None:
        result = ota(f"{command} --dry-run")
        assert result.exit_code == 0
        assert "nothing changed" in result.stdout
        assert not cloud.changes


def test_pausing_asks_nothing(ota: Callable[..., Result], cloud: Cloud) -> None:
    assert ota("rollout pause --line cells --reason smoke").exit_code == 0
    assert cloud.changes == [("POST", "/api/v1/lines/cells/releases/3/pause", {"reason": "smoke"})]


def test_rollback_sends_where_to_and_why(ota: Callable[..., Result], cloud: Cloud) -> None:
    ota("rollback --line cells --to 2 --reason escapes --yes")
    assert cloud.changes == [("POST", "/api/v1/lines/cells/rollback", {"to": 2, "reason": "escapes"})]


def test_an_adapter_the_gate_refused_is_exit_5(ota: Callable[..., Result], cloud: Cloud) -> None:
    cloud.answers["GET /api/v1/lines/cells/candidates/4"]["state"] = "refused"
    assert ota("release create --line cells --adapter 4 --reason r --yes").exit_code == 5
    assert not cloud.changes


def test_watch_prints_changes_only_and_ends_with_the_rollout(ota: Callable[..., Result], cloud: Cloud) -> None:
    looks = [status(3, "running"), status(3, "running"), status(3, "running", wave=1), status(3)]
    cloud.answers["GET /api/v1/lines/cells/releases/3"] = [httpx.Response(200, json=look) for look in looks]
    result = ota("rollout watch --line cells --json")
    assert result.exit_code == 0
    waves = [(d["release"]["state"], d["release"]["wave"]) for d in map(json.loads, result.stdout.splitlines())]
    assert waves == [("running", 0), ("running", 1), ("complete", 0)]


@pytest.mark.parametrize(("state", "failed", "code"), [("aborted", 1, 6), ("superseded", 0, 6), ("complete", 1, 6)])
def test_watch_tells_a_failed_rollout(
    ota: Callable[..., Result], cloud: Cloud, state: str, failed: int, code: int
) -> None:
    cloud.answers["GET /api/v1/lines/cells/releases/3"] = status(3, state, failed=failed)
    assert ota("rollout watch --line cells").exit_code == code


def test_watch_gives_up(ota: Callable[..., Result], cloud: Cloud) -> None:
    cloud.answers["GET /api/v1/lines/cells/releases/3"] = status(3, "running")
    result = ota("rollout watch --line cells --timeout 30")
    assert result.exit_code == 8
    assert "still running" in result.stderr


def test_a_line_without_releases_is_not_found(ota: Callable[..., Result], cloud: Cloud) -> None:
    cloud.answers["GET /api/v1/lines/cells/releases"] = []
    assert ota("rollout status --line cells").exit_code == 3
    assert ota("history --line cells --at 2026-03-02").exit_code == 3
    assert ota("release list --line cells").stdout == "no release yet\n"


@pytest.mark.parametrize(
    "command", ["release list", "rollback --line cells", "release show --line cells x", "nonsense"]
)
def test_usage_errors_are_2(ota: Callable[..., Result], command: str) -> None:
    assert ota(command).exit_code == 2


def test_ceremony_then_status_then_doctor(
    ota: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE_ENV, "correct horse battery")
    keys, repository = tmp_path / "keys", tmp_path / "repository"
    command = f"keys ceremony --folder {keys} --line cells --repository {repository} --json"
    assert ota(f"{command} --dry-run").exit_code == 0
    assert not keys.exists()
    made = json.loads(ota(command).stdout)
    assert made["kind"] == "keys"
    assert len(made["keys"]["roles"]["root"]) == 3
    rows = json.loads(ota(f"keys status --folder {keys} --json").stdout)["keys"]
    assert {row["state"] for row in rows} == {"here"}
    assert ota(f"doctor --repository {repository}").exit_code == 0
    assert ota(command).exit_code == 4


def test_ceremony_without_a_passphrase_and_a_terminal_fails(
    ota: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PASSPHRASE_ENV, raising=False)
    result = ota(f"keys ceremony --folder {tmp_path / 'k'} --line cells")
    assert result.exit_code == 4
    assert not (tmp_path / "k").exists()


def test_status_of_keys_that_are_not_there_is_not_found_and_of_a_damaged_folder_a_conflict(
    ota: Callable[..., Result], tmp_path: Path
) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        result = ota(f"keys status --folder {folder}")
        assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
        assert f"no keys in {folder}" in result.stderr
    (tmp_path / "keys.json").write_text("torn")
    assert ota(f"keys status --folder {tmp_path}").exit_code == 4


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError("the stick was pulled"), "the stick was pulled"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EACCES, "Permission denied", "/keys/root-1.pem"), "/keys/root-1.pem: Permission denied"),
        (OSError(), "OSError"),
    ],
)
def test_a_fault_of_the_disk_is_said_as_it_is(fault: OSError, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, faults(), _expected():
        raise fault
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"edgeloop ota: {said}\n"


def test_ceremony_refuses_a_bad_line_name(ota: Callable[..., Result], tmp_path: Path) -> None:
    assert ota(f"keys ceremony --folder {tmp_path / 'k'} --line ../x").exit_code == 2


def test_doctor_tells_expired_metadata(plant: Plant, ota: Callable[..., Result]) -> None:
    plant.clock.at = T0 - timedelta(days=2)
    plant.repository.renew_timestamp(plant.keys.online())
    result = ota(f"doctor --repository {plant.folder} --json")
    assert result.exit_code == 1
    rows = {row["role"]: row for row in json.loads(result.stdout)["roles"]}
    assert rows["timestamp"]["state"] == "expired"
    assert rows["timestamp"]["days"] == -1.0
    assert rows["base"]["state"] == "ok"
    assert ota(f"doctor --repository {plant.folder.parent / 'nowhere'}").exit_code == 3


def test_serve_refuses_what_is_no_repository(ota: Callable[..., Result], tmp_path: Path) -> None:
    result = ota(f"serve --repository {tmp_path}")
    assert result.exit_code == 2
    assert "no release repository" in result.stderr
