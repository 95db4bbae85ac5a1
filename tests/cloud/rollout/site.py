"""A line with signed adapter releases in a real TUF repository, and boxes that report with their own keys."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloud.db.tables import Audit, Outbox
from cloud.rollout.service import RolloutService
from cloud.rollout.settings import RolloutDefaults
from models.contracts.base import decode
from models.contracts.control import Announce, DeviceReport, ReportReason, SignedReport, UpdateState
from models.contracts.ids import uuid7
from models.contracts.release_manifest import ChannelManifest
from ota.keys import ceremony
from ota.repository import ReleaseRepository
from tests.cloud.registry.world import LINE, WHEN, Toy, World, toy_base

ROWS = {"good": (0.0, 1.0, 0.0), "scratch": (1.0, 0.0, 0.0)}
QUICK = RolloutDefaults(bake_s=0, min_parts=0, exclude_after_s=600)


def certificate(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """A self-signed certificate: only its key is looked at here."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(WHEN)
        .not_valid_after(WHEN + timedelta(days=365))
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


@dataclass
class BoxOfTests:
    """One box: signs what it is told to say."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    counter: int = 0

    def report(self, state: UpdateState, release: int, **fields: object) -> SignedReport:
        self.counter += 1
        id = str(uuid7(self.counter, self.name.encode().ljust(10, b"\0")[:10]))
        values = {
            "id": id, "edge": self.name, "line": LINE, "counter": self.counter, "state": state, "release": release,
            "sent_at": WHEN, **fields,
        }  # fmt: skip
        return self.sign(DeviceReport.model_validate(values))

    def sign(self, report: DeviceReport) -> SignedReport:
        body = report.encode().decode()
        signature = base64.b64encode(self.key.sign(body.encode(), ec.ECDSA(SHA256()))).decode()
        return SignedReport(id=report.id, edge=self.name, body=body, signature=signature)


class Site(World):
    """The cloud process' rollout over a real repository."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.add_line()
        keys = ceremony(self.folder / "keys", lines=[LINE], passphrase="correct horse")
        self.keys = keys
        self.repository = ReleaseRepository(self.folder / "repository", now=self.clock.now)
        self.repository.create(keys, [LINE])
        manifest, paths = toy_base(self.folder)
        self.base = self.registry.add_base(manifest, paths, b"checkpoint")
        self.repository.add_base(manifest, paths, keys.offline("base"), keys.online())
        self.boxes: dict[str, BoxOfTests] = {}
        self.restart(QUICK)

    def restart(self, defaults: RolloutDefaults | None = None) -> None:
        self.rollout = RolloutService(
            begin=self.begin, reads=self.reads, now=self.clock, registry=self.registry, jobs=self.jobs,
            publisher=self.repository, signers=self.keys.online(), defaults=defaults or self.rollout.defaults,
        )  # fmt: skip

    def add_boxes(self, *names: str) -> None:
        for name in names:
            self.boxes[name] = box = BoxOfTests(name)
            self.add_box(name, certificate=certificate(box.key, name))

    def accept(self, release: int, *, signed: bool = True) -> str:
        """An adapter release that passed the gate; returns its digest."""
        adapter, blobs = Toy(release, ROWS, bias=(0.01 * release, 0.0)).make(self.base)
        proposal = self.repository.propose_adapter(adapter, blobs, self.keys.signer("trainer")) if signed else b""
        id = self.registry.add_candidate(adapter, blobs, base_sha=self.base, proposal=proposal)
        self.registry.decide(id, accepted=True, report={"summary": "fine"})
        if signed:
            self.repository.endorse_adapter(LINE, proposal, self.keys.signer("gate"))
        return adapter.digest()

    def channel(self) -> ChannelManifest:
        """What boxes would be told now, as signed."""
        found = self.repository.current_channel(LINE, "stable")
        assert found is not None
        return found

    def commit(self, *names: str, number: int | None = None, parts: int = 50) -> None:
        """Boxes that the signed plan includes take the release and run it."""
        channel = self.channel()
        for name in names:
            assert number is not None or channel.plan.includes(name), f"{name} may not take it yet"
            release = channel.release if number is None else number
            fields = {"attempted": release, "loaded": channel.adapter.sha256, "parts_in_probation": parts}
            assert self.rollout.on_report(self.boxes[name].report(UpdateState.COMMITTED, release, **fields))

    def fail(self, *names: str, reason: ReportReason = ReportReason.PROBATION_FAILED) -> None:
        number = self.channel().release
        for name in names:
            fields = {"attempted": number, "reason": reason}
            assert self.rollout.on_report(self.boxes[name].report(UpdateState.ROLLED_BACK, number - 1, **fields))

    def spread(self) -> None:
        """Let the release under way reach every box that is online."""
        for _ in range(6):
            self.rollout.advance()
            channel = self.channel()
            done = {box.edge for box in self.rollout.status(LINE, channel.release).boxes if box.state == "ok"}
            self.commit(*(name for name in self.boxes if channel.plan.includes(name) and name not in done))
            self.clock.forward(1)
        self.rollout.advance()

    def announced(self) -> list[Announce]:
        with self.reads() as session:
            return [decode(Announce, row.payload) for row in session.query(Outbox).order_by(Outbox.id)]

    def actions(self) -> list[str]:
        with self.reads() as session:
            return [row.action for row in session.query(Audit).order_by(Audit.id)]
