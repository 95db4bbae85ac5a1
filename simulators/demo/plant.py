"""One plant on this machine: folders, certificates, tokens, and the configuration file of every process.

Everything lies below one work folder. Keys are split as in a real plant: each process gets a folder with only the keys
it may use, and the offline keys are in no process's reach. Ports are free ones of 127.0.0.1.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cloud.auth.tokens import new_token
from cloud.identity import Identity, LocalCa
from simulators.demo.scenario import CAMERA, CHANNEL, LINE, Scenario
from simulators.demo.toml import dumps
from simulators.servers.broker import Broker, ServerTls
from simulators.servers.ports import LOOPBACK, free_ports, require_free
from simulators.servers.store import Store

CLOUD = "cloud"
KEYS_OF: Mapping[str, tuple[str, ...]] = {
    "cloud": ("channel", "snapshot", "timestamp"),
    "train": ("trainer",),
    "gate": ("gate",),
}
TOKENS: Mapping[str, str] = {"you": "operator", "simulated reviewer": "labeller", "demo": "viewer"}
ESTIMATE_SHARE = 0.9
MIN_NEW_LABELS = 8


@dataclass(frozen=True, slots=True)
class Folders:
    """Where everything of one run lies."""

    work: Path

    @property
    def logs(self) -> Path:
        return self.work / "logs"

    @property
    def identities(self) -> Path:
        return self.work / "identities"

    @property
    def keys(self) -> Path:
        """The ceremony's own folder, offline keys included."""
        return self.work / "keys"

    @property
    def repository(self) -> Path:
        return self.work / "repository"

    @property
    def truth(self) -> Path:
        return self.work / "truth.jsonl"

    @property
    def factory_root(self) -> Path:
        """The root.json that every box is provisioned with."""
        return self.work / "factory-root.json"

    def process_keys(self, process: str) -> Path:
        return self.work / "process-keys" / process

    def config(self, process: str) -> Path:
        return self.work / "config" / f"{process}.toml"

    def state(self, process: str) -> Path:
        return self.work / "state" / process

    def journal(self, edge: str) -> Path:
        return self.work / "journals" / f"{edge}.jsonl"

    def schedules(self) -> Path:
        return self.work / "schedules"


@dataclass(frozen=True, slots=True)
class Ports:
    """Of our own servers."""

    web: int
    releases: int


def choose_ports(web: int | None) -> Ports:
    """Free ports, the dashboard's a wished one.

    Raises:
        PortInUse: something listens on the wished one.
    """
    if web is not None:
        require_free(web, "dashboard")
    first, second, third = free_ports(3)
    return Ports(web=web if web is not None else first, releases=second if second != web else third)


@dataclass(frozen=True, slots=True)
class Identities:
    """Certificates of broker, cloud and boxes, all of one local authority."""

    ca: Path
    broker: Identity
    cloud: Identity
    edges: Mapping[str, Identity]

    @property
    def broker_tls(self) -> ServerTls:
        return ServerTls(self.ca, self.broker.certificate, self.broker.key)


def issue_identities(folder: Path, edges: list[str], *, now: datetime) -> Identities:
    """A new authority and a certificate for everybody."""
    ca = LocalCa.create(folder, now=now)
    return Identities(
        ca=ca.certificate,
        broker=ca.issue("broker", kind="server", now=now, hosts=[LOOPBACK, "localhost"]),
        cloud=ca.issue(CLOUD, kind="device", now=now),
        edges={edge: ca.issue(edge, kind="device", now=now) for edge in edges},
    )


def split_keys(folders: Folders) -> None:
    """Give each process a folder with the online keys it may use and no other."""
    for process, roles in KEYS_OF.items():
        folder = folders.process_keys(process)
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        for role in roles:
            shutil.copy(folders.keys / "online" / f"{role}.pem", folder / f"{role}.pem")
            (folder / f"{role}.pem").chmod(0o400)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Fresh tokens by name, and what the cloud's configuration holds of them."""

    secrets: Mapping[str, str]
    entries: list[dict[str, str]]


def make_tokens() -> Tokens:
    """One for the person at the dashboard, one for the simulated reviewer, one for this program."""
    made = {name: new_token() for name in TOKENS}
    entries = [{"name": name, "role": TOKENS[name], "sha256": sha} for name, (_, sha) in made.items()]
    return Tokens(secrets={name: token for name, (token, _) in made.items()}, entries=entries)


def cloud_config(
    scenario: Scenario,
    folders: Folders,
    *,
    process: str,
    store: Store,
    broker: Broker,
    identities: Identities,
    ports: Ports,
    tokens: Tokens,
) -> dict[str, Any]:
    """The cloud's settings; its workers differ in the keys they hold."""
    document: dict[str, Any] = {
        "cloud": {"state_dir": folders.state(CLOUD)},
        "objects": {
            "endpoint": store.endpoint,
            "bucket": store.bucket,
            "access_key": store.access_key,
            "secret_key": store.secret_key,
        },
        "web": {"host": LOOPBACK, "port": ports.web, "public_url": f"http://{LOOPBACK}:{ports.web}"},
        "review": {"estimate_share": ESTIMATE_SHARE, "seed": scenario.seed},
        "release": {"repository": folders.repository, "keys": folders.process_keys(process), "tick_s": 0.25},
        "rollout": {
            "channel": CHANNEL,
            "canaries": 1,
            "bake_s": 0,
            "min_parts": 1,
            "probe": {"probation_parts": 2},
        },
        "training": {"tick_s": 0.25, "min_new_labels": MIN_NEW_LABELS, "options": {"seed": scenario.seed}},
        "worker": {"lease_s": 30.0, "poll_s": 0.2},
    }
    if process == CLOUD:
        document["mqtt"] = {
            "host": broker.host,
            "port": broker.port,
            "ca": identities.ca,
            "certificate": identities.cloud.certificate,
            "key": identities.cloud.key,
        }
        document["web.tokens"] = tokens.entries
    return document


def agent_config(
    scenario: Scenario,
    folders: Folders,
    edge: str,
    *,
    broker: Broker,
    identities: Identities,
    ports: Ports,
    bytes_per_hour: int,
) -> dict[str, Any]:
    """One box's settings. Its seed differs from its neighbours', or all would draw the same coins."""
    identity = identities.edges[edge]
    return {
        "agent": {
            "edge": edge,
            "line": LINE,
            "state_dir": folders.state(edge),
            "hour_s": scenario.hour_s,
            "threads": 1,
            "seed": scenario.seed * 1000 + scenario.edge_names.index(edge),
        },
        "identity": {"ca": identities.ca, "certificate": identity.certificate, "key": identity.key},
        "mqtt": {"host": broker.host, "port": broker.port},
        "release": {
            "url": f"http://{LOOPBACK}:{ports.releases}",
            "root": folders.factory_root,
            "channel": CHANNEL,
            "poll_s": 2.0,
            "spread_s": 0.0,
        },
        "selection": {"bytes_per_hour": bytes_per_hour, "audit_share": scenario.audit_share},
        "spool": {"max_bytes": 256 << 20, "ballast_bytes": 1 << 20, "min_free_bytes": 64 << 20},
        "uplink": {"heartbeat_s": 2.0},
        "journal": {"path": folders.journal(edge)},
        "cameras": [
            {"name": CAMERA, "kind": "simulated", "options": {"schedule": folders.schedules() / f"{edge}.jsonl"}}
        ],
    }


def write_config(path: Path, document: Mapping[str, Any]) -> Path:
    """Write it for our eyes only: it may hold the store's secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(dumps(document))
    return path
