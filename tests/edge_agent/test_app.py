"""The whole agent on a real spool, a real signed repository over HTTP, and a link without a broker."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge_agent.app import Agent, Outside
from edge_agent.settings import AgentSettings, BadSettings, load
from edge_agent.spool import SpoolBusy
from models.contracts.base import decode
from models.contracts.control import DeviceReport, SignedReport, UpdateState
from models.contracts.release_manifest import ChannelManifest, Probe, RolloutPlan, Wave
from models.link import OnConnection, OnMessage
from ota.keys import KeyFolder, ceremony
from ota.repository import ReleaseRepository
from tests.edge_agent.certificates import new_key, write_certificate, write_key
from tests.edge_agent.static import Stage, served
from tests.models.runtime.tiny import TinyRelease, part, tiny_base, tiny_release

WAIT_S = 20.0


class DeadLink:
    """A broker that is never there."""

    connected = False

    def start(self, *, on_message: OnMessage, on_connection: OnConnection) -> None: ...

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout: float = 0.0) -> bool:
        return False

    def stop(self) -> None: ...


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        time.sleep(0.02)


class Plant:
    """Keys, repository, server and one box's files."""

    def __init__(self, folder: Path, keys: KeyFolder, stage: Stage) -> None:
        self.folder, self.keys, self.stage = folder, keys, stage
        self.repository = ReleaseRepository(folder / "repository", now=lambda: datetime.now(UTC))
        (folder / "root.json").write_bytes(self.repository.root_bytes())
        key = new_key()
        write_key(folder / "edge.key", key)
        write_certificate(folder / "edge.pem", key, "edge-1")
        self.inbox = folder / "inbox"
        self.inbox.mkdir()

    def publish(self, number: int, release: TinyRelease, *, parts: int = 3) -> None:
        repository = self.repository
        manifest = release.manifest
        proposal = repository.propose_adapter(manifest, release.blobs, self.keys.signer("trainer"))
        repository.endorse_adapter("cells", proposal, self.keys.signer("gate"))
        repository.publish(
            ChannelManifest(
                line="cells",
                channel="stable",
                release=number,
                model_version=manifest.model_version,
                base=repository.base_ref("tiny", 1),
                adapter=repository.adapter_ref("cells", manifest.release),
                probe=Probe(probation_parts=parts),
                plan=RolloutPlan(salt="s", waves=[Wave(percent=100)]),
                actor="test",
                created_at=datetime.now(UTC),
            ),
            self.keys.online(),
        )

    def settings(self, **changes: dict[str, Any]) -> AgentSettings:
        folder = self.folder
        sections: dict[str, Any] = {
            "agent": {"edge": "edge-1", "line": "cells", "state_dir": folder / "state", "hour_s": 2},
            "identity": {"ca": folder / "edge.pem", "certificate": folder / "edge.pem", "key": folder / "edge.key"},
            "mqtt": {"host": "127.0.0.1", "port": 1, "tls": False},
            "release": {"url": self.stage.url, "root": folder / "root.json", "poll_s": 0.2, "spread_s": 0.0},
            "spool": {"max_bytes": 64 << 20, "ballast_bytes": 0, "min_free_bytes": 0},
            "journal": {"path": folder / "journal.jsonl"},
            "cameras": [{"name": "cam-1", "kind": "folder", "options": {"folder": self.inbox, "poll_s": 0.02}}],
        }
        for section, values in changes.items():
            sections[section] = {**sections.get(section, {}), **values}
        return load(None, **sections)

    def agent(self, **changes: dict[str, Any]) -> Agent:
        return Agent(self.settings(**changes), outside=Outside(link=DeadLink()))

    def drop(self, seed: int) -> None:
        path = self.inbox / f".s-{seed}.png"
        cv2.imwrite(str(path), part(seed))
        path.rename(self.inbox / f"s-{seed}.png")

    def journal(self) -> list[dict[str, Any]]:
        path = self.folder / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> KeyFolder:
    return ceremony(tmp_path_factory.mktemp("keys"), lines=["cells"], passphrase="correct horse battery")


@pytest.fixture
def plant(tmp_path: Path, signed: KeyFolder) -> Iterator[Plant]:
    repository = ReleaseRepository(tmp_path / "repository", now=lambda: datetime.now(UTC))
    repository.create(signed, ["cells"])
    files = {}
    base = tiny_base()
    for file in base.manifest.files:
        files[file.name] = tmp_path / file.name
        files[file.name].write_bytes(base.files[file.sha256])
    repository.add_base(base.manifest, files, signed.offline("base"), signed.online())
    with served(tmp_path / "repository") as stage:
        yield Plant(tmp_path, signed, stage)


def reports(agent: Agent) -> list[DeviceReport]:
    signed = [decode(SignedReport, r.payload) for r in agent.spool.records_due(100) if r.kind == "report"]
    return [decode(DeviceReport, report.body.encode()) for report in signed]


def test_from_an_empty_box_to_a_committed_update_and_back_from_a_restart(plant: Plant) -> None:
    plant.publish(1, tiny_release(1))
    agent = plant.agent()
    agent.start()
    try:
        until(lambda: agent.inspector.current, "first model")
        for seed in range(3):
            plant.drop(seed)
        until(lambda: agent.updater.state is UpdateState.COMMITTED, "first commit")
        plant.publish(2, tiny_release(2, seed=2))
        until(lambda: agent.inspector.current.release == 2, "second model")
        for seed in range(10, 13):
            plant.drop(seed)
        until(lambda: agent.updater.state is UpdateState.COMMITTED, "second commit")
        until(lambda: any(r.kind == "agg" for r in agent.spool.records_due(100)), "an hour's sums")
        said = reports(agent)
    finally:
        agent.stop()
    assert [report.state for report in said] == [
        UpdateState.IDLE,
        UpdateState.PROBATION,
        UpdateState.COMMITTED,
        UpdateState.PROBATION,
        UpdateState.COMMITTED,
    ]
    rows = plant.journal()
    assert {row["serial"]: row["release"] for row in rows} == {
        f"s-{i}": 1 if i < 9 else 2 for i in (0, 1, 2, 10, 11, 12)
    }
    kept = [row["sid"] for row in rows if row["sid"]]
    again = plant.agent(release={"url": "http://127.0.0.1:9"})
    try:
        assert again.spool.account().pending == len(kept)
        again.start()
        assert again.inspector.current.release == 2
        plant.drop(20)
        until(lambda: len(plant.journal()) == 7, "inspection without network")
    finally:
        again.stop()


def test_a_falsified_blob_never_runs_and_inspection_goes_on(plant: Plant) -> None:
    plant.publish(1, tiny_release(1), parts=0)
    agent = plant.agent()
    agent.start()
    try:
        until(lambda: agent.updater.state is UpdateState.COMMITTED, "first commit")
        plant.publish(2, tiny_release(2, seed=2), parts=0)
        bad = tiny_release(2, seed=2).manifest.adapter.blob
        for path in (plant.folder / "repository").rglob(f"*{bad.sha256}*"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            plant.stage.lies[str(path.relative_to(plant.folder / "repository"))] = bytes(data)
        until(lambda: agent.updater.security_faults, "refusal")
        assert agent.inspector.current.release == 1
        plant.drop(1)
        until(plant.journal, "inspection")
        assert reports(agent)[-1].reason == "digest"
        plant.stage.lies.clear()
        until(lambda: agent.inspector.current.release == 2, "the honest bytes")
    finally:
        agent.stop()


def test_a_wiped_client_folder_is_an_alarm_on_a_box_that_ran_a_release(plant: Plant) -> None:
    plant.publish(1, tiny_release(1), parts=0)
    agent = plant.agent()
    agent.start()
    try:
        until(lambda: agent.updater.state is UpdateState.COMMITTED, "first commit")
    finally:
        agent.stop()
    shutil.rmtree(plant.folder / "state" / "releases")
    plant.publish(2, tiny_release(2, seed=2), parts=0)
    again = plant.agent()
    again.start()
    try:
        until(lambda: again.updater.security_faults, "the alarm")
        assert reports(again)[-1].reason == "tampered"
        assert "floors" in (again.updater.trouble or "")
        plant.drop(1)
        until(plant.journal, "an answer")
        assert all(row["release"] != 2 for row in plant.journal())
    finally:
        again.stop()


def test_an_agent_without_any_release_answers_every_part(plant: Plant) -> None:
    agent = plant.agent()
    agent.start()
    try:
        plant.drop(1)
        until(plant.journal, "an answer")
        assert (plant.journal()[0]["verdict"], plant.journal()[0]["cannot_judge"]) == ("unsure", "no_model")
        until(lambda: "no release" in (agent.updater.trouble or ""), "the reason")
    finally:
        agent.stop()


def test_run_ends_in_order_when_told_to(plant: Plant) -> None:
    stop, agent = threading.Event(), plant.agent()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert json.loads((plant.folder / "state" / "slots.json").read_text())["running"] is False


def test_two_agents_cannot_share_a_state_folder(plant: Plant) -> None:
    agent = plant.agent()
    try:
        with pytest.raises(SpoolBusy):
            plant.agent()
    finally:
        agent.close()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"release": {"root": Path("/nowhere/root.json")}}, r"release\.root"),
        ({"agent": {"edge": "edge-2"}}, r"agent\.edge"),
    ],
)
def test_a_box_set_up_wrongly_says_what_is_wrong(plant: Plant, changes: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        plant.agent(**changes)


def test_an_unknown_camera_kind_is_a_setting_fault(plant: Plant) -> None:
    settings = plant.settings()
    camera = settings.cameras[0].model_copy(update={"kind": "gige"})
    with pytest.raises(BadSettings, match=r"cameras\.cam-1\.kind"):
        Agent(settings.model_copy(update={"cameras": [camera]}), outside=Outside(link=DeadLink()))
