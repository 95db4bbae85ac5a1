"""The one place that knows every concrete class of the cloud. `build` makes the services, `Cloud` runs the process.

Nothing opens or connects before `build` is called. The trainer is imported only by `train_worker`, inside the worker
process that trains: no other part of the cloud may load torch.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from fastapi import FastAPI
from sqlalchemy import Engine, select

from cloud import outbox
from cloud.accuracy.service import AccuracyService
from cloud.auth.tokens import Sessions, TokenBook, session_key
from cloud.clock import NowUs, from_us, now_us
from cloud.db.migrate import upgrade
from cloud.db.session import Begin, open_engine, reads, transactions
from cloud.db.tables import Outbox
from cloud.fleet.service import FleetService
from cloud.gate.service import GateService
from cloud.ingest.archive import Archive
from cloud.ingest.dead_letters import DeadLetters
from cloud.ingest.images import SampleImages
from cloud.ingest.mqtt import IngestRunner, will
from cloud.ingest.presence import PresenceBook
from cloud.ingest.records import OnReport, Records
from cloud.ingest.service import IngestService
from cloud.ingest.staging import Landing, StagingFiles
from cloud.ingest.upkeep import Upkeep
from cloud.ingest.uploads import Uploads
from cloud.jobs.hourly import GATE, PROPOSE, RENEW, TRAIN, TrainingTrigger
from cloud.jobs.renewal import RenewalTrigger
from cloud.jobs.service import JobService
from cloud.jobs.worker import Ahead, Worker
from cloud.labels.service import LabelService
from cloud.lines.service import LineService
from cloud.objects import ObjectStore, StoreUnavailable
from cloud.objects.blobs import BlobCache
from cloud.objects.s3 import S3Objects
from cloud.objects.state import StoreState
from cloud.registry.service import RegistryService
from cloud.rollout.service import RolloutService
from cloud.scheduler import Scheduler
from cloud.settings import CloudSettings, MqttSection
from cloud.web import create_app
from models.contracts import topics
from models.contracts.uplink import IngestLimits
from models.link import Address, Link, Tls
from models.link.mqtt import MqttLink
from models.runtime.base import SessionLimits
from ota.keys import OnlineSigners, load_online
from ota.repository import ReleaseRepository

OUTBOX_S = 0.25
UPKEEP_S = 30.0
BUCKET_S = 10.0
INGEST_IN_FLIGHT = 32
log = structlog.get_logger(__name__)


@dataclass
class Services:
    """One attribute per service; what a process has no key for is None."""

    settings: CloudSettings
    now: NowUs
    engine: Engine
    begin: Begin
    reads: Begin
    objects: ObjectStore
    blobs: BlobCache
    images: SampleImages
    landing: Landing | None
    repository: ReleaseRepository
    lines: LineService
    labels: LabelService
    jobs: JobService
    registry: RegistryService
    accuracy: AccuracyService
    training: TrainingTrigger
    renewal: RenewalTrigger
    fleet: FleetService
    rollout: RolloutService | None = None
    gate: GateService | None = None
    ingest: IngestService | None = None
    broker_state: Callable[[], str] = lambda: "off"
    store_state: Callable[[], str] = lambda: "off"


def build(settings: CloudSettings, *, now: NowUs = now_us, objects: ObjectStore | None = None) -> Services:
    """Open the database (and bring it to this version), and make every service that needs no key.

    Raises:
        OSError, sqlalchemy.exc.SQLAlchemyError, NewerDatabase: the state folder or database cannot be used.
    """
    state = settings.cloud.state_dir
    state.mkdir(parents=True, exist_ok=True)
    engine = open_engine(settings.database_url)
    upgrade(engine)
    begin, read = transactions(engine), reads(engine)
    store = objects if objects is not None else open_objects(settings)
    blobs = BlobCache(state / "blobs", store)
    landing = Landing(state / "landing") if settings.ingest.landing_keep_s > 0 else None
    common: dict[str, Any] = {"begin": begin, "reads": read, "now": now}
    jobs = JobService(**common)
    repository = ReleaseRepository(settings.release.repository, now=_datetimes(now))
    return Services(
        settings=settings,
        now=now,
        engine=engine,
        begin=begin,
        reads=read,
        objects=store,
        blobs=blobs,
        images=SampleImages(objects=store, landing=landing),
        landing=landing,
        repository=repository,
        lines=LineService(**common, blobs=blobs),
        labels=LabelService(**common),
        jobs=jobs,
        registry=RegistryService(**common, blobs=blobs),
        accuracy=AccuracyService(**common),
        training=TrainingTrigger(**common, jobs=jobs, min_labels=settings.training.min_new_labels),
        renewal=RenewalTrigger(**common, jobs=jobs, repository=repository),
        fleet=FleetService(**common),
        store_state=StoreState(store),
    )


def open_objects(settings: CloudSettings) -> S3Objects:
    """The S3 client; connects on first use."""
    section = settings.objects
    return S3Objects(
        endpoint=section.endpoint,
        access_key=section.access_key.get_secret_value(),
        secret_key=section.secret_key.get_secret_value(),
        bucket=section.bucket,
        secure=section.secure,
        ca=section.ca,
        region=section.region,
        timeout_s=section.timeout_s,
    )


def add_rollout(services: Services) -> RolloutService:
    """The rollout service, with the channel, snapshot and timestamp keys.

    Raises:
        ota.errors.PublishError: a key is missing or open to others.
    """
    services.rollout = RolloutService(
        begin=services.begin,
        reads=services.reads,
        now=services.now,
        registry=services.registry,
        jobs=services.jobs,
        publisher=services.repository,
        signers=OnlineSigners.load(services.settings.release.keys),
        defaults=services.settings.rollout,
        owner=owner(),
    )
    return services.rollout


@dataclass
class Ingest:
    """Ingest with what keeps it in order."""

    service: IngestService
    dead_letters: DeadLetters
    upkeep: Upkeep


def add_ingest(services: Services, *, on_report: OnReport) -> Ingest:
    """Ingest without a transport."""
    settings, begin, now = services.settings, services.begin, services.now
    dead = DeadLetters(begin=begin, now=now, keep=settings.ingest.dead_letters)
    archive = Archive(begin=begin, objects=services.objects, now=now, landing=services.landing, review=settings.review)
    files = StagingFiles(settings.cloud.state_dir / "staging")
    uploads = Uploads(begin=begin, archive=archive, files=files, now=now, limits=settings.ingest)
    service = IngestService(
        uploads=uploads,
        records=Records(begin=begin, now=now, on_report=on_report),
        presence=PresenceBook(begin=begin, now=now),
        dead_letters=dead,
    )
    upkeep = Upkeep(
        begin=begin, reads=services.reads, now=now, objects=services.objects, landing=services.landing,
        limits=settings.ingest, forget=uploads.forget,
    )  # fmt: skip
    services.ingest = service
    services.fleet = FleetService(begin=begin, reads=services.reads, now=now, ingest_numbers=service.numbers)
    return Ingest(service, dead, upkeep)


def open_link(section: MqttSection, instance: str) -> MqttLink:
    """The link to the broker as ingest needs it.

    Raises:
        OSError, ssl.SSLError: a certificate or key file cannot be used.
    """
    return MqttLink(
        address=address(section),
        client_id=section.client_id,
        subscriptions=[topics.ALL_UP],
        will=will(instance),
        max_in_flight=INGEST_IN_FLIGHT,
        max_reconnect_s=10.0,
    )


def address(section: MqttSection) -> Address:
    """Where the broker is and who we are there."""
    if not section.tls:
        return Address(section.host, section.port)
    if section.ca is None or section.certificate is None or section.key is None:
        raise OSError("mqtt.ca, mqtt.certificate and mqtt.key are needed, or mqtt.tls = false on loopback")
    return Address(section.host, section.port, Tls(section.ca, section.certificate, section.key))


class Cloud:
    """The process of `edgeloop cloud run`: web application, ingest thread, scheduler."""

    def __init__(self, services: Services, *, link: Link | None = None) -> None:
        self.services = services
        settings = services.settings
        rollout = add_rollout(services)
        ingest = add_ingest(services, on_report=rollout.on_report)
        self.instance = secrets.token_hex(8)
        self._has_bucket = False
        if link is None and settings.mqtt is not None:
            link = open_link(settings.mqtt, self.instance)
        self._link = link
        self.runner = self._runner(link, ingest) if link is not None else None
        services.broker_state = self._broker_state
        self.scheduler = Scheduler()
        self.scheduler.register("training", settings.training.tick_s, services.training.tick)
        self.scheduler.register("rollout", settings.release.tick_s, rollout.advance)
        self.scheduler.register("renewal", settings.release.renew_timestamp_s, services.renewal.tick)
        self.scheduler.register("timestamp", settings.release.renew_timestamp_s, rollout.renew_timestamp)
        self.scheduler.register("upkeep", UPKEEP_S, ingest.upkeep.tick)
        self.scheduler.register("outbox", OUTBOX_S, self._flush)
        self.app = self._app()

    def start(self) -> None:
        """Start the threads. A store or broker that is down is waited for."""
        self._ensure_bucket()
        self.scheduler.register("bucket", BUCKET_S, self._ensure_bucket)
        if self.runner is not None:
            self.runner.start()
        self.scheduler.start()

    def stop(self) -> None:
        """Stop the threads, finishing what is in hand."""
        self.scheduler.stop()
        if self.runner is not None:
            self.runner.stop()
        self.services.engine.dispose()

    def _runner(self, link: Link, ingest: Ingest) -> IngestRunner:
        section = self.services.settings.ingest
        limits = IngestLimits(
            chunk_bytes=section.chunk_bytes,
            sample_bytes=section.sample_bytes,
            unsolicited_bytes=section.unsolicited_bytes,
        )
        return IngestRunner(
            link=link,
            service=ingest.service,
            dead_letters=ingest.dead_letters,
            instance=self.instance,
            limits=limits,
        )

    def _ensure_bucket(self) -> None:
        """Make the bucket once; until the store is there, samples wait at the edges."""
        objects = self.services.objects
        if self._has_bucket or not isinstance(objects, S3Objects):
            return
        try:
            objects.ensure_bucket()
        except StoreUnavailable as fault:
            log.warning("store_unavailable", error=str(fault), hint="samples wait at the edges until it is back")
        else:
            self._has_bucket = True

    def _broker_state(self) -> str:
        if self._link is None:
            return "off"
        return "ok" if self._link.connected else "away"

    def _flush(self) -> None:
        """Send what waits. Asked with a read first: the write lock is not for polling."""
        if self._link is None or not self._link.connected:
            return
        with self.services.reads() as session:
            waiting = session.scalars(select(Outbox.id).limit(1)).first()
        if waiting is not None:
            outbox.flush(self.services.begin, self._link)

    def _app(self) -> FastAPI:
        settings = self.services.settings
        tokens = TokenBook(settings.web.tokens)
        sessions = Sessions(
            key=session_key(settings.cloud.state_dir / "session.key"),
            tokens=tokens,
            now=self.services.now,
            hours=settings.web.session_hours,
        )
        return create_app(self.services, tokens=tokens, sessions=sessions, secure_cookies=settings.secure_cookies)


def gate_worker(services: Services) -> Worker:
    """The worker that judges; holds the gate key.

    Raises:
        ota.errors.PublishError: the key is missing or open to others.
    """
    settings = services.settings
    services.gate = GateService(
        begin=services.begin,
        reads=services.reads,
        now=services.now,
        lines=services.lines,
        registry=services.registry,
        jobs=services.jobs,
        blobs=services.blobs,
        repository=services.repository,
        key=load_online(settings.release.keys / "gate.pem"),
        settings=settings.gate,
        limits=SessionLimits(threads=settings.worker.threads),
    )
    return _worker(services, {GATE: services.gate.handle, RENEW: services.gate.renew}, services.gate.ahead)


def train_worker(services: Services) -> Worker:
    """The worker that learns; holds the trainer key, and alone loads torch.

    Raises:
        ota.errors.PublishError: the key is missing or open to others.
    """
    from cloud.trainer.describe import DESCRIBE  # noqa: PLC0415 - only this process may import torch
    from cloud.trainer.service import build_trainer  # noqa: PLC0415 - only this process may import torch

    settings = services.settings
    trainer = build_trainer(services, signer=load_online(settings.release.keys / "trainer.pem"))
    handlers = {TRAIN: trainer.handle, PROPOSE: trainer.propose}
    return _worker(services, handlers, trainer.ahead, idle={DESCRIBE: trainer.describer.handle})


def _worker(
    services: Services, handlers: dict[str, Any], ahead: Ahead, idle: dict[str, Any] | None = None
) -> Worker:  # fmt: skip
    section = services.settings.worker
    return Worker(
        jobs=services.jobs, handlers=handlers, owner=owner(), lease_s=section.lease_s, poll_s=section.poll_s,
        ahead=ahead, idle=idle,
    )  # fmt: skip


def owner() -> str:
    """This process among all that hold leases."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def _datetimes(now: NowUs) -> Callable[[], datetime]:
    return lambda: from_us(now())
