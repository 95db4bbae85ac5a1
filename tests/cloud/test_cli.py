"""`edgeloop cloud`: set up a plant, run it as a process, stop it gracefully, and clear lines for every fault."""

from __future__ import annotations

import json
import logging
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import structlog
from typer.testing import CliRunner

from cloud.auth.tokens import digest
from cloud.cli import app
from cloud.identity import LocalCa
from ota.keys import ceremony
from ota.repository import ReleaseRepository
from tests.cloud.kit import png

CONFIG = """
[cloud]
state_dir = "state"
[objects]
endpoint = "127.0.0.1:1"
access_key = "a"
secret_key = "b"
timeout_s = 0.5
[release]
repository = "repo"
keys = "keys/online"
[web]
port = 0
[[web.tokens]]
name = "ann"
role = "admin"
sha256 = "{digest}"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    keys = ceremony(tmp_path / "keys", lines=["cells"], passphrase="a long passphrase")
    ReleaseRepository(tmp_path / "repo", now=lambda: datetime.now(UTC)).create(keys, ["cells"])
    path = tmp_path / "cloud.toml"
    path.write_text(CONFIG.format(digest=digest("secret")))
    return path


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """The commands set up the process's logging on a stderr that ends with the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = before


def call(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def line_create(config: Path, name: str = "cells", *more: str) -> tuple[int, str, str]:
    classes = ("--class", "good", "--class", "crack:defect:must-catch")
    return call("line", "create", name, "--config", str(config), *classes, *more)


def test_a_line_and_a_box_are_made(config: Path, tmp_path: Path) -> None:
    code, out, _ = line_create(config, "cells", "--title", "Solar cells", "--hour-s", "40", "--json")
    made = json.loads(out)
    assert (code, made["hour_s"], made["classes"][1]) == (
        0,
        40.0,
        {"name": "crack", "defect": True, "must_catch": True},
    )
    assert line_create(config, "cells", "--title", "Solar cells", "--hour-s", "40")[0] == 0
    assert line_create(config)[0] == 4
    assert "cells  Solar cells  good, crack" in call("line", "list", "-c", str(config))[1]
    ca = LocalCa.create(tmp_path / "ca", now=datetime.now(UTC))
    identity = ca.issue("edge-1", kind="device", now=datetime.now(UTC))
    add = ("edge", "add", "edge-1", "-c", str(config), "--certificate", str(identity.certificate))
    assert call(*add, "--line", "cells")[0] == 0
    code, _, err = call(*add, "--line", "nowhere")
    assert (code, err) == (3, "edgeloop cloud: There is no line 'nowhere'.\n")


def test_reference_images_are_checked_before_anything_is_stored(config: Path, tmp_path: Path) -> None:
    line_create(config)
    folder = tmp_path / "images"
    (folder / "good").mkdir(parents=True)
    (folder / "good" / "a.png").write_bytes(png(1))
    base = ("line", "import", "-c", str(config), "--line", "cells", "--data", str(folder))
    code, _, err = call(*base, "--purpose", "gate")
    assert (code, "cannot be reached" in err) == (1, True)  # the object store of this configuration is away
    assert call(*base, "--purpose", "judge")[0] == 2
    (folder / "scratch").mkdir()
    (folder / "scratch" / "b.png").write_bytes(png(2))
    code, _, err = call(*base, "--purpose", "gate")
    assert (code, "scratch" in err) == (1, True)


@pytest.mark.parametrize("listed", [False, True])
def test_a_bad_image_is_named_by_its_path_and_nothing_is_imported(
    config: Path, tmp_path: Path, *, listed: bool
) -> None:
    line_create(config)
    folder = tmp_path / "images"
    (folder / "good").mkdir(parents=True)
    (folder / "good" / "a.png").write_bytes(png(1))
    (folder / "good" / "b.png").write_bytes(b"no image")
    if listed:
        (folder / "labels.csv").write_text("file,label\ngood/a.png,good\ngood/b.png,good\n")
    base = ("line", "import", "-c", str(config), "--line", "cells", "--data", str(folder), "--purpose", "gate")
    code, out, err = call(*base)
    bad = folder / "good" / "b.png"
    assert (code, out) == (1, "")
    assert err == f"edgeloop cloud: Image {bad} cannot be used: not a PNG, JPEG or BMP image.\n"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"file,label\na.png,good\n", "a.png cannot be opened"),
        (b"file,label\na.png\n", "lacks its file or its label: a.png"),
        (b"name,label\na.png,good\n", "needs the columns"),
        (b"\xff\xfe\x00", "no table in UTF-8"),
    ],
)
def test_a_table_of_images_that_cannot_be_read_is_one_line(
    config: Path, tmp_path: Path, table: bytes, words: str
) -> None:
    (tmp_path / "labels.csv").write_bytes(table)
    base = ("line", "import", "-c", str(config), "--line", "cells", "--data", str(tmp_path), "--purpose", "gate")
    code, _, err = call(*base)
    assert (code, err.count("\n")) == (2, 1), err
    assert words in err


def test_tokens_are_shown_once_and_configured_by_digest() -> None:
    code, out, _ = call("token", "create", "bob", "--role", "labeller", "--url", "http://here:8000/", "--json")
    made = json.loads(out)
    assert code == 0
    assert made["sha256"] == digest(made["token"])
    assert made["link"] == f"http://here:8000/login?token={made['token']}"
    assert "[[web.tokens]]" in call("token", "create", "bob")[1]
    assert call("token", "create", "bob", "--role", "king")[0] == 2


def test_bad_configuration_is_one_line_and_exit_2(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text() + "\n[ingest]\nspeed = 3\n")
    for words in (("run",), ("worker", "--kind", "gate"), ("migrate",), ("doctor",), ("line", "list")):
        code, out, err = call(*words, "-c", str(config))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "unknown key ingest.speed" in err
    assert call("migrate", "-c", str(tmp_path / "none.toml"))[0] == 2
    assert not (tmp_path / "state").exists()


def test_doctor_finds_what_is_missing(config: Path) -> None:
    code, out, _ = call("doctor", "-c", str(config), "--json")
    found = {finding["name"]: finding for finding in json.loads(out)["findings"]}
    assert code == 1
    assert not found["object store"]["ok"]
    assert "edgeloop cloud" in found["disk"]["detail"]
    assert found["keys"]["ok"]
    assert found["release repository"]["ok"]
    call("migrate", "-c", str(config))
    _, out, _ = call("doctor", "-c", str(config))
    assert "ok    database: revision" in out


def doctor(config: Path, name: str) -> str:
    _, out, _ = call("doctor", "-c", str(config), "--json")
    found = {finding["name"]: finding for finding in json.loads(out)["findings"]}
    assert not found[name]["ok"]
    return str(found[name]["detail"])


def test_doctor_says_which_store_is_away_and_what_to_check(config: Path) -> None:
    assert doctor(config, "object store") == (
        "object store 127.0.0.1:1 cannot be reached (Connection refused): "
        "check that it runs, and objects.endpoint and objects.secure"
    )


def test_doctor_says_which_broker_is_away_and_what_to_check(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config.write_text(config.read_text() + f'\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\ntls = false\n')
    assert doctor(config, "broker") == (
        f"broker 127.0.0.1:{port} cannot be reached (Connection refused): "
        "check that it runs, and mqtt.host and mqtt.port"
    )


def test_doctor_names_the_file_of_the_identity_that_cannot_be_used(config: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "certificate", "key")}
    lines = "".join(f'{name} = "{path}"\n' for name, path in files.items())
    config.write_text(config.read_text() + f'\n[mqtt]\nhost = "127.0.0.1"\nport = 1\n{lines}')
    said = f"mqtt.ca {files['ca']} cannot be read (No such file or directory): correct the path"
    assert doctor(config, "broker") == said
    for path in files.values():
        path.write_text("no PEM")
    assert "cannot be used together" in doctor(config, "broker")


def test_doctor_says_that_the_broker_is_not_trusted(config: Path, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    theirs = LocalCa.create(tmp_path / "theirs", now=now).issue("broker", kind="server", hosts=["127.0.0.1"], now=now)
    ours = LocalCa.create(tmp_path / "ours", now=now)
    mine = ours.issue("cloud", kind="device", now=now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs.certificate, theirs.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        serving = threading.Thread(target=shake, args=(listener, context))
        serving.start()
        port = listener.getsockname()[1]
        files = f'ca = "{ours.certificate}"\ncertificate = "{mine.certificate}"\nkey = "{mine.key}"\n'
        config.write_text(config.read_text() + f'\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n{files}')
        said = doctor(config, "broker")
        serving.join(10)
    assert said.startswith(f"no TLS with broker 127.0.0.1:{port} (")
    assert said.endswith("): check mqtt.ca and the broker's certificate")


def shake(listener: socket.socket, context: ssl.SSLContext) -> None:
    peer, _ = listener.accept()
    with peer, suppress(OSError):
        context.wrap_socket(peer, server_side=True).close()


def test_a_bad_option_of_a_line_is_one_line_and_exit_2(config: Path) -> None:
    code, out, err = line_create(config, "cells", "--escape-cost", "-1")
    assert (code, out, err) == (
        2,
        "",
        "edgeloop cloud: --escape-cost -1 cannot be used: write a number, 0 or more\n",
    )
    code, _, err = line_create(config, "cells", "--class", "crack")
    assert (code, err) == (2, "edgeloop cloud: --class 'crack' is given as good and as defect: give each class once\n")


def test_missing_keys_stop_the_start_with_one_line(config: Path, tmp_path: Path) -> None:
    (tmp_path / "keys" / "online" / "channel.pem").unlink()
    code, _, err = call("run", "-c", str(config))
    assert code == 1
    assert "channel.pem" in err.splitlines()[-1]


def test_a_port_in_use_is_one_line(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = call("run", "-c", str(config), "--port", str(port))
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in err


def lines_of(process: subprocess.Popen[str]) -> Iterator[dict[str, object]]:
    assert process.stderr is not None
    for line in process.stderr:
        yield json.loads(line)


def start(*words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", "import sys; from models.dispatch import main; sys.exit(main())", *words]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def test_the_process_serves_and_stops_gracefully(config: Path) -> None:
    with start("cloud", "run", "--config", str(config)) as process:
        try:
            url = next(str(event["url"]) for event in lines_of(process) if event["event"] == "listening")
            assert healthy(url)
            headers = {"authorization": "Bearer secret"}
            assert httpx.get(f"{url}/api/v1/lines", headers=headers, timeout=5).json() == []
            process.send_signal(signal.SIGTERM)
            rest, ended = list(lines_of(process)), process.wait(20)
        finally:
            process.kill()
    assert ended == 0
    assert "secret" not in json.dumps(rest)


def healthy(url: str) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            parts = httpx.get(f"{url}/api/v1/health", timeout=5).json()["parts"]
            return bool(parts == {"database": "ok", "broker": "off", "object_store": "away"})
        except httpx.TransportError:
            time.sleep(0.05)
    return False


def test_a_worker_stops_gracefully(config: Path) -> None:
    with start("cloud", "worker", "--config", str(config), "--kind", "gate") as process:
        try:
            assert next(event["event"] for event in lines_of(process)) == "worker_started"
            process.send_signal(signal.SIGTERM)
            ended = process.wait(20)
        finally:
            process.kill()
    assert ended == 0
