"""`edgeloop cloud line publish`: a trained folder becomes a signed release, or one clear line says why not."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud import bootstrap
from cloud.cli import app
from cloud.jobs.hourly import GATE, RENEW
from cloud.settings import load
from models.contracts.model_manifest import CascadeCuts
from models.runtime.bundle import Bundle, read_starting, write_starting
from ota.keys import ceremony
from ota.repository import ReleaseRepository
from simulators.objects import MemoryObjects
from tests.cloud.trainer.test_service import LINE, starting_bundle

PASSPHRASE = "a long enough passphrase"
CONFIG = """
[cloud]
state_dir = "state"
[objects]
endpoint = "127.0.0.1:1"
access_key = "a"
secret_key = "b"
[release]
repository = "repo"
keys = "keys/online"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `edgeloop models train` leaves."""
    folder = tmp_path_factory.mktemp("trained")
    made: Bundle = starting_bundle(tmp_path_factory.mktemp("made"))
    write_starting(folder, made)
    return folder


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with cloud.toml, keys, and a repository that knows another line; the object store is in memory."""
    keys = ceremony(tmp_path / "keys", lines=["cells"], passphrase=PASSPHRASE)
    ReleaseRepository(tmp_path / "repo", now=lambda: datetime.now(UTC)).create(keys, ["cells"])
    (tmp_path / "cloud.toml").write_text(CONFIG)
    store = MemoryObjects()
    monkeypatch.setattr(bootstrap, "open_objects", lambda _: store)
    monkeypatch.setenv("EDGELOOP_OTA_PASSPHRASE", PASSPHRASE)
    return tmp_path


def call(plant: Path, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["line", *words, "--config", str(plant / "cloud.toml")])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def create(plant: Path, *classes: str) -> None:
    options = [word for name in classes or ("good", "scratch:defect") for word in ("--class", name)]
    assert call(plant, "create", LINE, *options)[0] == 0


def publish(plant: Path, model: Path, *more: str, line: str = LINE) -> tuple[int, str, str]:
    return call(plant, "publish", "--line", line, "--model", str(model), "--offline-keys", str(plant / "keys"), *more)


def repository(plant: Path) -> ReleaseRepository:
    return ReleaseRepository(plant / "repo", now=lambda: datetime.now(UTC))


def refused(found: tuple[int, str, str], *, code: int, words: str) -> None:
    assert (found[0], found[1], found[2].count("\n")) == (code, "", 1), found
    assert words in found[2]


def test_a_model_is_signed_and_handed_to_the_gate_once(plant: Path, trained: Path) -> None:
    create(plant)
    code, out, err = publish(plant, trained, "--json")
    assert (code, err) == (0, "")
    done = json.loads(out)
    assert done["release"] == 1
    assert repository(plant).base_ref("toy", 1).sha256 == done["base"]
    assert LINE in repository(plant).lines()
    code, out, _ = publish(plant, trained)
    assert (code, out.strip()) == (0, f"base {done['base'][:12]} is signed; release 1 waits for the gate worker")


def test_a_gate_with_cuts_is_published_under_the_number_the_refusal_names(
    plant: Path, trained: Path, tmp_path: Path
) -> None:
    """`train` made release 1 and it is out; with cuts the same gate is another release on the same base."""
    create(plant)
    assert publish(plant, trained)[0] == 0
    services = bootstrap.build(load(plant / "cloud.toml"))
    gate = read_starting(trained).adapter
    cuts = CascadeCuts(certain_pass_below=0.001, calibrated_against="a" * 64)
    folders = {}
    for number in (1, 2):
        folders[number] = Path(shutil.copytree(trained, tmp_path / f"gated-{number}"))
        changed = gate.model_copy(update={"release": number, "cascade": cuts})
        (folders[number] / "adapter.json").write_bytes(changed.encode())
    refused(publish(plant, folders[1]), code=4, words="release 2: edgeloop models cascade apply ... --release 2")
    refused(publish(plant, folders[2]), code=4, words="wait for the gate")
    job = services.jobs.lease([GATE], "gate", 60)
    assert job is not None
    services.jobs.finish(job)
    code, out, err = publish(plant, folders[2], "--json")
    assert (code, err, json.loads(out)["release"]) == (0, "", 2)
    assert services.registry.by_release(LINE, 2).manifest["cascade"]["certain_pass_below"] == 0.001
    services.engine.dispose()


def test_a_wrong_passphrase_signs_nothing_and_the_right_one_goes_on(
    plant: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(plant)
    monkeypatch.setenv("EDGELOOP_OTA_PASSPHRASE", "a long but wrong one")
    refused(publish(plant, trained), code=1, words="passphrase")
    assert LINE not in repository(plant).lines()
    monkeypatch.setenv("EDGELOOP_OTA_PASSPHRASE", PASSPHRASE)
    assert publish(plant, trained)[0] == 0


def test_without_a_terminal_the_passphrase_must_be_given(
    plant: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGELOOP_OTA_PASSPHRASE")
    refused(publish(plant, trained), code=2, words="EDGELOOP_OTA_PASSPHRASE")


def test_a_model_of_other_classes_is_refused(plant: Path, trained: Path) -> None:
    create(plant, "good", "dent:defect")
    refused(publish(plant, trained), code=4, words="the model's classes are good, scratch")


def test_a_model_of_another_line_is_refused(plant: Path, trained: Path) -> None:
    assert call(plant, "create", "cells", "--class", "good", "--class", "scratch:defect")[0] == 0
    refused(publish(plant, trained, line="cells"), code=4, words=f"trained for line {LINE}")


def test_an_unknown_line_is_refused(plant: Path, trained: Path) -> None:
    refused(publish(plant, trained), code=3, words=LINE)


@pytest.mark.parametrize("broken", ["files/trunk.onnx", "base.json", "adapter.json", "checkpoint.safetensors"])
def test_a_damaged_folder_is_refused(plant: Path, trained: Path, tmp_path: Path, broken: str) -> None:
    create(plant)
    damaged = Path(shutil.copytree(trained, tmp_path / "damaged"))
    if broken.startswith("files/"):
        (damaged / broken).write_bytes(b"torn")
    else:
        (damaged / broken).unlink()
    refused(publish(plant, damaged), code=4, words=str(damaged))
    assert LINE not in repository(plant).lines()


def test_a_folder_without_keys_is_one_line(plant: Path, trained: Path) -> None:
    create(plant)
    shutil.rmtree(plant / "keys" / "offline")
    refused(publish(plant, trained), code=1, words="offline")


def test_a_store_that_is_away_is_one_line(plant: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(plant)
    monkeypatch.setattr(bootstrap, "open_objects", lambda _: MemoryObjects(down=True))
    code, _, err = publish(plant, trained)
    assert (code, err.count("\n")) == (1, 1)


def test_nothing_is_published_beside_a_renewal_of_the_same_role(plant: Path, trained: Path) -> None:
    create(plant)
    services = bootstrap.build(load(plant / "cloud.toml"))
    with services.begin() as session:
        services.jobs.enqueue(session, RENEW, f"{RENEW}/{LINE}/1", {})
    refused(publish(plant, trained), code=4, words="publish again")
    job = services.jobs.lease([RENEW], "gate", 60)
    assert job is not None
    services.jobs.finish(job)
    services.engine.dispose()
    assert publish(plant, trained)[0] == 0
