"""One real plant for a journey: broker, object store, cloud, gate worker, release server and one box, all processes.

The demo's own set-up is used, but for three things: the model is a toy one, made in a second; nothing learns; and the
box looks at a folder, so that a test decides when a part passes. `kill` is SIGKILL; `start_again` runs the very
command that was killed.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import torch

from cloud.first_release import publish_bundle
from cloud.fleet.schemas import NewEdge
from cloud.lines.schemas import ReferenceItem
from models.contracts.base import sha256_hex
from models.contracts.model_manifest import ClassSpec, ExposureLimits, Lineage
from models.nn.checkpoint import save_checkpoint
from models.nn.heads import fit_head
from models.nn.release import Costs, Identity, ReleaseSettings, assemble, embed_onnx, pack
from models.runtime.bundle import Bundle
from models.runtime.golden import read_golden
from simulators.demo import setup
from simulators.demo.figures import Account, account
from simulators.demo.plant import CLOUD, Folders, agent_config, choose_ports, write_config
from simulators.demo.scenario import CAMERA, CLASSES, DEFECTIVE, LINE, Scenario
from simulators.servers.children import Command, Servers, edgeloop
from simulators.servers.ports import LOOPBACK, answers
from tests.models.nn.toy import NOW, examples, picture, toy

EDGE = "edge-1"
BROKER, STORE = "broker", "object-store"
SCENARIO = Scenario(hours=3, hour_s=10, edges=1, change_after=0, parts_per_hour=10, audit_share=1.0, seed=3)
WITHIN_S = 30.0


def starting_bundle(folder: Path) -> Bundle:
    """Release 1 on the toy base: tells parts with a bright band from those without."""
    made, learned = toy(), examples(toy(), range(40))
    embedding = torch.from_numpy(embed_onnx(made.base, learned.tokens[:, 0], {}))
    weight, bias = fit_head(embedding, torch.from_numpy(learned.labels), torch.ones(40), classes=2, decay=0.01)
    parts = assemble(
        made.base,
        [ClassSpec(name=name, defect=name == DEFECTIVE) for name in CLASSES],
        lora=None,
        feeds={},
        head=(weight.numpy(), bias.numpy()),
        validation=examples(made, range(40, 80)),
        seen=learned,
        costs=Costs(),
        settings=ReleaseSettings(),
        exposure=ExposureLimits(),
        seed=0,
    )
    lineage = Lineage(training_run="starting", code_version="test", seed=0, trained_at=NOW)
    identity = Identity(made.built.manifest.digest(), LINE, 1, lineage, NOW)
    golden = read_golden(made.built.files["golden.safetensors"])
    packed = pack(made.base, parts, identity, golden=golden, rank=made.model.config.lora_rank)
    files = {name: folder / name for name in made.built.files}
    for name, path in files.items():
        path.write_bytes(made.built.files[name])
    return Bundle(
        made.built.manifest, files, save_checkpoint(made.model), packed.manifest, packed.blobs, {"parity": 0.001}
    )


def png(seed: int) -> bytes:
    """A part; odd seeds are defective."""
    return bytes(cv2.imencode(".png", picture(seed, defect=bool(seed % 2)))[1])


@dataclass(repr=False)
class Site:
    """The plant as a test handles it."""

    plant: setup.Plant
    servers: Servers
    work: Path
    parts: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def raise_(cls, work: Path, servers: Servers) -> Site:
        """Everything up, release 1 published and on the box."""
        plant = setup.raise_plant(SCENARIO, Folders(work), choose_ports(None), servers, lambda _: None)
        site = cls(plant, servers, work)
        gate = [ReferenceItem(png(seed), CLASSES[seed % 2], group=f"g{seed // 10}") for seed in range(400, 440)]
        plant.services.lines.add_references(LINE, "gate", gate, actor="test")
        publish_bundle(plant.services, starting_bundle(work), plant.keys)
        site._start_cloud()
        setup.wait_for_release(plant, within=WITHIN_S)
        site._start_box()
        site.until(lambda: site.box()["heartbeat"].get("release") == 1, "release 1 on the box")
        return site

    def _start_cloud(self) -> None:
        folders, ports = self.plant.folders, self.plant.ports
        served = ("--repository", str(folders.repository), "--host", LOOPBACK, "--port", str(ports.releases))
        one = setup.ONE_THREAD
        lenient = {**one, "EDGELOOP__GATE__CALIBRATION": "0.5"}  # forty toy images calibrate nothing
        run = edgeloop("cloud", "run", "--config", str(folders.config(CLOUD)))
        gate = edgeloop("cloud", "worker", "--config", str(folders.config("gate")), "--kind", "gate")
        self.servers.start(Command(CLOUD, run, tier=1, environment=one))
        self.servers.start(Command("release-server", edgeloop("ota", "serve", *served)))
        self.servers.start(Command("gate-worker", gate, tier=2, environment=lenient))
        self.servers.wait(lambda: answers(ports.releases), what="release-server", within=WITHIN_S)
        self.servers.wait(lambda: answers(ports.web), what=CLOUD, within=WITHIN_S)

    def _start_box(self) -> None:
        plant = self.plant
        certificate = plant.identities.edges[EDGE].pem
        plant.services.fleet.enrol(NewEdge(name=EDGE, line=LINE, certificate=certificate), actor="test")
        document = agent_config(
            SCENARIO,
            plant.folders,
            EDGE,
            broker=plant.broker,
            identities=plant.identities,
            ports=plant.ports,
            bytes_per_hour=64 << 20,
        )
        self.inbox.mkdir()
        options = {"folder": self.inbox, "poll_s": 0.05}
        document["cameras"] = [{"name": CAMERA, "kind": "folder", "options": options}]
        document["uplink"] = {"heartbeat_s": 0.5}
        document["release"]["poll_s"] = 0.5
        config = write_config(plant.folders.config(EDGE), document)
        run = edgeloop("agent", "run", "--config", str(config))
        self.servers.start(Command(EDGE, run, tier=3, environment=setup.ONE_THREAD))

    @property
    def inbox(self) -> Path:
        return self.work / "inbox"

    def kill(self, name: str) -> Command:
        """SIGKILL; returns what `start_again` needs."""
        child = self.servers.children[name]
        child.send(signal.SIGKILL)
        self.servers.stop(name)
        assert self.servers.exit_codes[name] == -signal.SIGKILL
        return child.command

    def start_again(self, command: Command, *, port: int | None = None) -> None:
        self.servers.start(command, ready=None if port is None else lambda: answers(port), within=WITHIN_S)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait while every process lives."""
        self.servers.wait(condition, what=what, within=WITHIN_S)

    def drop(self, serial: str, data: bytes) -> None:
        """A part passes the camera."""
        self.parts[serial] = data
        hidden = self.inbox / f".{serial}"
        hidden.write_bytes(data)
        hidden.rename(self.inbox / f"{serial}.png")

    def pass_parts(self, *seeds: int) -> None:
        """Parts pass and every one is answered and, if kept, durably spooled."""
        for seed in seeds:
            self.drop(f"P{seed:04d}", png(seed))
        self.until(lambda: set(self.parts) <= {row["serial"] for row in self.journal()}, "an answer for every part")

    def journal(self) -> list[dict[str, Any]]:
        path = self.plant.folders.journal(EDGE)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def kept(self) -> dict[str, str]:
        """Serials by sample id, as the box wrote down."""
        return {row["sid"]: row["serial"] for row in self.journal() if row["sid"]}

    def ask(self, method: str, path: str, *, as_: str = "you", **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.plant.tokens.secrets[as_]}"}
        content = {"json": body} if body else {}
        return httpx.request(method, f"{self.plant.url}/api/v1{path}", headers=headers, timeout=10, **content)

    def box(self) -> dict[str, Any]:
        (box,) = self.ask("GET", "/fleet").json()["edges"]
        return dict(box)

    def account(self) -> Account:
        return account(self.ask("GET", f"/lines/{LINE}/conservation").json())

    def settled(self) -> bool:
        """Everything the box kept is stored, and it has said since that nothing waits."""
        found = self.account()
        return found.holds and found.pending == 0 and found.stored >= len(self.kept())

    def stored(self) -> set[str]:
        """Ids of kept samples that the cloud has, each with the very bytes the camera gave."""
        found = set()
        for sid, serial in self.kept().items():
            if self.ask("GET", f"/samples/{sid}").status_code == 200:
                image = self.ask("GET", f"/samples/{sid}/image")
                assert sha256_hex(image.content) == sha256_hex(self.parts[serial]), serial
                found.add(sid)
        return found
