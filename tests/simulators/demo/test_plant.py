"""The configuration files are the ones the programs read, and every process holds only its own keys."""

from __future__ import annotations

import stat
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud import settings as cloud_settings
from cloud.identity import common_name
from edge_agent import settings as agent_settings
from ota.keys import ceremony
from simulators.demo.plant import (
    KEYS_OF,
    Folders,
    agent_config,
    choose_ports,
    cloud_config,
    issue_identities,
    make_tokens,
    split_keys,
    write_config,
)
from simulators.demo.scenario import Scenario
from simulators.demo.toml import dumps
from simulators.servers.broker import Broker
from simulators.servers.store import Store

SCENARIO = Scenario(edges=2)
STORE = Store("127.0.0.1", 9000, "edgeloop", "access", 'secret "quoted" \\ ü')
BROKER = Broker("127.0.0.1", 8883, "mosquitto")


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


@pytest.mark.parametrize("process", list(KEYS_OF))
def test_the_cloud_reads_its_file(folders: Folders, process: str) -> None:
    identities = issue_identities(folders.identities, SCENARIO.edge_names, now=datetime.now(UTC))
    tokens, ports = make_tokens(), choose_ports(None)
    document = cloud_config(
        SCENARIO,
        folders,
        process=process,
        store=STORE,
        broker=BROKER,
        identities=identities,
        ports=ports,
        tokens=tokens,
    )
    path = write_config(folders.config(process), document)
    read = cloud_settings.load(path)
    assert read.objects.secret_key.get_secret_value() == STORE.secret_key
    assert (read.mqtt is not None) == (process == "cloud")
    assert len(read.web.tokens) == (3 if process == "cloud" else 0)
    assert read.release.keys == folders.process_keys(process)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_box_reads_its_file_and_has_its_own_identity_and_coins(folders: Folders) -> None:
    identities = issue_identities(folders.identities, SCENARIO.edge_names, now=datetime.now(UTC))
    ports = choose_ports(None)
    read = []
    for edge in SCENARIO.edge_names:
        document = agent_config(
            SCENARIO, folders, edge, broker=BROKER, identities=identities, ports=ports, bytes_per_hour=1000
        )
        read.append(agent_settings.load(write_config(folders.config(edge), document)))
        assert common_name(identities.edges[edge].pem) == edge
    assert len({one.agent.seed for one in read}) == 2
    assert read[0].cameras[0].options == {"schedule": str(folders.schedules() / "edge-1.jsonl")}


def test_no_process_holds_a_key_it_does_not_need(folders: Folders) -> None:
    ceremony(folders.keys, lines=["cells"], passphrase="correct horse")
    split_keys(folders)
    held = {process: sorted(path.stem for path in folders.process_keys(process).iterdir()) for process in KEYS_OF}
    assert held == {"cloud": ["channel", "snapshot", "timestamp"], "train": ["trainer"], "gate": ["gate"]}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders.process_keys("gate").iterdir()} == {0o400}


def test_toml_comes_back_as_it_went() -> None:
    document = {
        "a": {"text": 'quote " backslash \\ tab \t ü', "yes": True, "n": 3, "x": 0.5, "list": [1, "two"], "no": None},
        "b": [{"name": "one", "inner": {"k": "v"}}, {"name": "two"}],
    }
    expected = {**document, "a": {key: value for key, value in document["a"].items() if value is not None}}  # type: ignore[attr-defined]
    assert tomllib.loads(dumps(document)) == expected  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no place in a configuration file"):
        dumps({"a": {"when": object()}})
