"""The whole agent with a gate: both models come as signed releases, each on its own line, from one repository."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent.app import Agent
from edge_agent.cascade import NO_LINE_MODEL, NoGate
from models.contracts.model_manifest import AdapterManifest, CascadeCuts
from models.contracts.release_manifest import ChannelManifest, Probe, RolloutPlan, Wave
from ota.keys import KeyFolder, ceremony
from ota.repository import ReleaseRepository
from tests.edge_agent.static import served
from tests.edge_agent.test_app import Plant, until
from tests.models.runtime.tiny import TinyRelease, tiny_base, tiny_release

GATE, OTHER_GATE = "cells-gate", "other-gate"
CASCADE = {"cascade": {"gate_line": GATE, "deadline_ms": 60_000.0, "audit_share": 1.0}}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFolder:
    return ceremony(
        tmp_path_factory.mktemp("keys"), lines=["cells", GATE, OTHER_GATE], passphrase="correct horse battery"
    )


@pytest.fixture
def plant(tmp_path: Path, keys: KeyFolder) -> Iterator[Plant]:
    repository = ReleaseRepository(tmp_path / "repository", now=lambda: datetime.now(UTC))
    repository.create(keys, ["cells", GATE, OTHER_GATE])
    base, files = tiny_base(), {}
    for file in base.manifest.files:
        files[file.name] = tmp_path / file.name
        files[file.name].write_bytes(base.files[file.sha256])
    repository.add_base(base.manifest, files, keys.offline("base"), keys.online())
    with served(tmp_path / "repository") as stage:
        yield Plant(tmp_path, keys, stage)


def gate_release(number: int, cuts: CascadeCuts | None, *, line: str = GATE) -> TinyRelease:
    """Release `number` of the gate's line, certain of nothing or of everything below its call."""
    made = tiny_release(number, call_at=0.95)
    fields = made.manifest.model_dump(mode="json", exclude_none=True) | {"line": line}
    if cuts is not None:
        fields["cascade"] = cuts.model_dump(mode="json", exclude_none=True)
    return TinyRelease(AdapterManifest.model_validate(fields), made.blobs)


def publish(
    plant: Plant, number: int, release: TinyRelease, *, state: str = "running", revoked: Sequence[str] = ()
) -> None:
    """On the line the release names, which the plant's own `publish` does not ask."""
    repository, manifest, keys = plant.repository, release.manifest, plant.keys
    proposal = repository.propose_adapter(manifest, release.blobs, keys.signer("trainer"))
    repository.endorse_adapter(manifest.line, proposal, keys.signer("gate"))
    repository.publish(
        ChannelManifest(
            line=manifest.line, channel="stable", release=number, model_version=manifest.model_version,
            base=repository.base_ref("tiny", 1), adapter=repository.adapter_ref(manifest.line, manifest.release),
            probe=Probe(probation_parts=0), plan=RolloutPlan(salt="s", state=state, waves=[Wave(percent=100)]),
            actor="test", created_at=datetime.now(UTC), revoked=list(revoked),
        ),
        keys.online(),
    )  # fmt: skip


def status(agent: Agent) -> dict[str, Any]:
    host, port = agent._page.address
    with urllib.request.urlopen(f"http://{host}:{port}/status.json", timeout=5) as reply:
        return json.load(reply)


ALL_PASS = CascadeCuts(certain_pass_below=0.95)


def test_both_models_arrive_signed_and_a_gate_without_cuts_steps_back(plant: Plant) -> None:
    publish(plant, 1, gate_release(1, ALL_PASS))
    agent = plant.agent(status={"port": free_port()}, **CASCADE)
    agent.start()
    try:
        until(lambda: agent.gate.inspector.current, "the gate")
        assert status(agent)["cascade"]["trouble"] == NO_LINE_MODEL
        plant.drop(1)
        until(plant.journal, "a certain answer")
        publish(plant, 1, tiny_release(1))
        until(lambda: agent.inspector.current, "the line's model")
        plant.drop(2)
        until(lambda: agent.cascade.total().n_audited == 1, "an audit")
        said = status(agent)["cascade"]
        publish(plant, 2, gate_release(2, None))
        until(lambda: agent.gate.inspector.current.release == 2, "the gate without cuts")
        assert agent.cascade.trouble == NoGate.NO_CUTS.value
        plant.drop(3)
        until(lambda: len(plant.journal()) == 3, "an answer of the line's model")
    finally:
        agent.stop()
    assert (said["trouble"], said["gate_line"], said["release"], said["update_state"]) == (None, GATE, 1, "committed")
    assert (said["sums"]["n_pass"], said["sums"]["n_audited"], said["escape"]["high"] <= 1) == (2, 1, True)
    rows = [(row["stage"], row["release"], row["gate_release"]) for row in plant.journal()]
    assert rows == [("gate", 0, 1), ("gate", 1, 1), ("line", 1, None)]
    again = plant.agent(release={"url": "http://127.0.0.1:9"}, **CASCADE)
    again.start()
    try:
        assert (again.gate.inspector.current.release, again.inspector.current.release) == (2, 1)
    finally:
        again.stop()


def test_a_revoked_gate_is_removed_and_the_line_model_sees_every_part(plant: Plant) -> None:
    bad = gate_release(1, ALL_PASS)
    publish(plant, 1, bad)
    publish(plant, 1, tiny_release(1))
    agent = plant.agent(**CASCADE)
    agent.start()
    try:
        until(lambda: agent.gate.inspector.current and agent.inspector.current, "both models")
        publish(plant, 2, gate_release(2, ALL_PASS), state="paused", revoked=[bad.sha])
        until(agent.gate.revoked, "the removal")
        assert "release 1 of the gate's line is revoked" in agent.cascade.trouble
        plant.drop(1)
        until(plant.journal, "an answer")
    finally:
        agent.stop()
    assert [row["stage"] for row in plant.journal()] == ["line"]


def test_another_gate_line_starts_without_the_old_lines_gate(plant: Plant) -> None:
    publish(plant, 3, gate_release(3, ALL_PASS))
    agent = plant.agent(**CASCADE)
    agent.start()
    until(lambda: agent.gate.inspector.current, "the first line's gate")
    agent.stop()
    other = plant.agent(cascade=CASCADE["cascade"] | {"gate_line": OTHER_GATE})
    other.start()
    try:
        assert other.gate.inspector.current is None, "it decided under the other line's name"
        publish(plant, 1, gate_release(1, ALL_PASS, line=OTHER_GATE))
        until(lambda: other.gate.inspector.current, "release 1 of the other line")
        assert (other.gate.inspector.current.manifest.line, other.gate.state().release) == (OTHER_GATE, 1)
    finally:
        other.stop()


def test_a_falsified_gate_never_runs_and_the_line_is_inspected_without_it(plant: Plant) -> None:
    publish(plant, 1, tiny_release(1))
    bad = gate_release(1, ALL_PASS)
    publish(plant, 1, bad)
    root = plant.folder / "repository"
    for path in root.rglob(f"*{bad.sha}*"):
        plant.stage.lies[str(path.relative_to(root))] = path.read_bytes().replace(b"0.95", b"0.96")
    assert plant.stage.lies
    agent = plant.agent(**CASCADE)
    agent.start()
    try:
        until(lambda: agent.gate.updater.security_faults, "the refusal")
        until(lambda: agent.inspector.current, "the line's model")
        plant.drop(1)
        until(plant.journal, "an answer")
        assert (agent.gate.inspector.current, agent.updater.security_faults) == (None, 0)
        assert agent.cascade.trouble == NoGate.NOT_INSTALLED.value
    finally:
        agent.stop()
    assert [row["stage"] for row in plant.journal()] == ["line"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
