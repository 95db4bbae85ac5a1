"""From nothing to a plant that runs release 1: servers, keys, line, boxes, reference images, model, first release.

The order is a real plant's: keys by ceremony, the repository, the line, the images that judge and the images that are
replayed, the base signed with the offline keys, and the first adapter release through the same gate and the same two
signatures as every later one. It is released before the boxes are enrolled: a line without boxes has no canary, and a
canary before the first part has passed would be waited for in vain.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from cloud.bootstrap import Services, build
from cloud.fleet.schemas import NewEdge
from cloud.lines.schemas import LineSpec, NewClass, Purpose, ReferenceItem
from cloud.settings import load
from ota.keys import KeyFolder, ceremony
from simulators.cells import Cell, CellSets, of_kind
from simulators.demo.plant import (
    CLOUD,
    KEYS_OF,
    Folders,
    Identities,
    Ports,
    Tokens,
    agent_config,
    cloud_config,
    issue_identities,
    make_tokens,
    split_keys,
    write_config,
)
from simulators.demo.records import CloudApi
from simulators.demo.scenario import (
    CAMERA,
    CLASSES,
    DEFECTIVE,
    ESCAPE_COST,
    LINE,
    OVERKILL_COST,
    Scenario,
)
from simulators.servers.broker import Broker, start_broker
from simulators.servers.children import Command, Servers, edgeloop
from simulators.servers.errors import ServerError
from simulators.servers.ports import LOOPBACK, answers
from simulators.servers.store import Store, start_store

ACTOR = "demo"
CURRENCY = "EUR"
SERVER_TIER, CLOUD_TIER, WORKER_TIER, AGENT_TIER = 0, 1, 2, 3
UPLOADS = 8
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

Say = Callable[[str], None]


@dataclass(slots=True)
class Plant:
    """A plant under construction: what the steps below need of each other."""

    scenario: Scenario
    folders: Folders
    ports: Ports
    servers: Servers
    identities: Identities
    tokens: Tokens
    store: Store
    broker: Broker
    keys: KeyFolder
    services: Services

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.web}"

    @property
    def sign_in(self) -> str:
        """A link that opens the dashboard for the person at this machine."""
        return f"{self.url}/login?token={self.tokens.secrets['you']}"

    def api(self) -> CloudApi:
        """The cloud as this program asks it."""
        return CloudApi(self.url, token=self.tokens.secrets["demo"])


def raise_plant(scenario: Scenario, folders: Folders, ports: Ports, servers: Servers, say: Say) -> Plant:
    """Servers, certificates, keys, repository, database and line; nothing of ours runs yet.

    Raises:
        ServerError: see its subclasses.
    """
    identities = issue_identities(folders.identities, scenario.edge_names, now=datetime.now(UTC))
    broker = start_broker(
        servers, folders.state("broker"), tls=identities.broker_tls, cloud=CLOUD, edges=scenario.edge_names
    )
    say(f"MQTT broker: {broker.kind} on {broker.host}:{broker.port}, mutual TLS")
    store = start_store(servers, folders.state("objects"))
    say(f"object store: SeaweedFS on {store.endpoint}, bucket {store.bucket}")
    keys = ceremony(folders.keys, lines=[LINE], passphrase=secrets.token_urlsafe(24))
    split_keys(folders)
    tokens = make_tokens()
    for process in KEYS_OF:
        document = cloud_config(
            scenario,
            folders,
            process=process,
            store=store,
            broker=broker,
            identities=identities,
            ports=ports,
            tokens=tokens,
        )
        write_config(folders.config(process), document)
    services = build(load(folders.config(CLOUD)))
    services.repository.create(keys, [LINE])
    folders.factory_root.write_bytes(services.repository.root_bytes())
    _create_line(services, scenario)
    say(f"release repository: signed by {len(KEYS_OF)} online processes, offline keys apart")
    return Plant(scenario, folders, ports, servers, identities, tokens, store, broker, keys, services)


def _create_line(services: Services, scenario: Scenario) -> None:
    spec = LineSpec(
        name=LINE,
        title="Solar cells",
        classes=[NewClass(name=name, defect=name == DEFECTIVE) for name in CLASSES],
        escape_cost=ESCAPE_COST,
        overkill_cost=OVERKILL_COST,
        currency=CURRENCY,
        cameras=[CAMERA],
        hour_s=float(scenario.hour_s),
    )
    services.lines.create(spec, actor=ACTOR)


def import_references(plant: Plant, sets: CellSets) -> None:
    """The mono images: the gate's, and the base set as what training replays."""
    _import(plant, "gate", of_kind(sets.gate, "mono"))
    _import(plant, "memory", sets.base)


def import_new_product(plant: Plant, sets: CellSets, *, change_at: float) -> None:
    """The poly images of the gate: here from the start, counted from the change on."""
    _import(plant, "gate", of_kind(sets.gate, "poly"), active_from=int(change_at * 1e6))


def _import(plant: Plant, purpose: Purpose, cells: Sequence[Cell], *, active_from: int = 0) -> None:
    """Blobs go first and side by side: one after the other, a thousand small uploads take half a minute."""
    items = [
        ReferenceItem(cell.path.read_bytes(), cell.label, domain=cell.kind, group=f"block-{cell.block}")
        for cell in cells
    ]
    with ThreadPoolExecutor(UPLOADS) as pool:
        list(pool.map(plant.services.blobs.add, [item.data for item in items]))
    plant.services.lines.add_references(LINE, purpose, items, active_from=active_from, actor=ACTOR)


def start_cloud(plant: Plant) -> None:
    """The cloud, its two workers and the release server.

    Raises:
        ServerError: one of them does not come up.
    """
    folders, servers, ports = plant.folders, plant.servers, plant.ports
    serve = edgeloop(
        "ota", "serve", "--repository", str(folders.repository), "--host", LOOPBACK, "--port", str(ports.releases)
    )
    run = edgeloop("cloud", "run", "--config", str(folders.config(CLOUD)))
    servers.start(Command("cloud", run, tier=CLOUD_TIER, environment=ONE_THREAD))
    servers.start(Command("release-server", serve, tier=SERVER_TIER))
    for kind in ("train", "gate"):
        worker = edgeloop("cloud", "worker", "--config", str(folders.config(kind)), "--kind", kind)
        servers.start(Command(f"{kind}-worker", worker, tier=WORKER_TIER))
    servers.wait(lambda: answers(ports.releases), what="release-server", within=60)
    api = plant.api()
    try:
        servers.wait(api.healthy, what="cloud", within=60)
    finally:
        api.close()


def wait_for_release(plant: Plant, *, within: float) -> None:
    """Until release 1 is published.

    Raises:
        ServerError: the gate refused it, or nothing came of it in time.
    """

    def released() -> bool:
        candidate = plant.services.registry.by_release(LINE, 1)
        if candidate.state == "refused":
            why = candidate.report.get("summary", "see its report")
            raise ServerError(f"the gate refused the starting model: {why}")
        return plant.services.repository.current_channel(LINE, "stable") is not None

    plant.servers.wait(released, what="gate-worker", within=within)


def start_agents(plant: Plant, *, bytes_per_hour: int) -> None:
    """Enrol the boxes and start them; their cameras show nothing before hour 1."""
    for edge in plant.scenario.edge_names:
        certificate = plant.identities.edges[edge].pem
        plant.services.fleet.enrol(NewEdge(name=edge, line=LINE, certificate=certificate), actor=ACTOR)
        document = agent_config(
            plant.scenario,
            plant.folders,
            edge,
            broker=plant.broker,
            identities=plant.identities,
            ports=plant.ports,
            bytes_per_hour=bytes_per_hour,
        )
        config = write_config(plant.folders.config(edge), document)
        run = edgeloop("agent", "run", "--config", str(config))
        plant.servers.start(Command(edge, run, tier=AGENT_TIER, environment=ONE_THREAD))


def boxes_with(api: CloudApi, release: int) -> set[str]:
    """Boxes that say they run `release`."""
    try:
        return {edge["name"] for edge in api.fleet()["edges"] if edge["heartbeat"].get("release") == release}
    except (httpx.TransportError, httpx.HTTPStatusError):
        return set()
