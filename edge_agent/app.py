"""The composition root: the only file that knows every concrete class, and the order of start and stop.

Start: state folder, identity, spool, the stored model, then inspection, then the outside world. A broker or repository
that is away delays nothing. Stop: cameras, the frames already taken, counters, updates, the uplink, the spool.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import cv2
import structlog

from edge_agent.aggregates import PeriodLedger
from edge_agent.cameras import Capture, Frame
from edge_agent.cameras.feed import CameraFeed
from edge_agent.cameras.registry import camera_kind
from edge_agent.cascade import Cascade, CascadePolicy
from edge_agent.checkpoint import Checkpoint
from edge_agent.clock import Clock, Mint
from edge_agent.envelope import Envelopes
from edge_agent.flags import FlagInbox
from edge_agent.following import Following, follow
from edge_agent.health import Meter, ModelState, Pulse, cascade_health, physical_memory_mb
from edge_agent.housekeeping import Housekeeper, restore
from edge_agent.identity import Identity
from edge_agent.outputs import FileJournal, Journal, LoggedOutput, NoJournal, RejectOutput
from edge_agent.pipeline import Pipeline
from edge_agent.second_look import SecondLook
from edge_agent.selector.pace import Pace
from edge_agent.selector.rule import Selector
from edge_agent.selector.source import TermSource
from edge_agent.settings import AgentSettings, BadSettings, CameraSection
from edge_agent.snapshot import Sources, snapshot
from edge_agent.spool import Limits, Spool
from edge_agent.status import StatusPage
from edge_agent.updater.eligible import Box
from edge_agent.uplink import Uplink, UplinkSettings, open_link
from models.contracts.control import Announce, CheckUpdate, Command, SelectionBudget, SignedReport
from models.contracts.sample import CannotJudge
from models.contracts.telemetry import CascadeHealth
from models.disk import REAL_FS
from models.link import Link

STOP_S = 10.0
_log = structlog.get_logger("agent")


@dataclass(frozen=True, slots=True)
class Outside:
    """What a test or a plant replaces: clocks, randomness, the link to the broker and the reject gate."""

    clock: Clock = field(default_factory=Clock)
    mint: Mint = field(default_factory=Mint)
    rng: random.Random = field(default_factory=random.SystemRandom)
    link: Link | None = None
    output: RejectOutput = field(default_factory=LoggedOutput)


class Agent:
    """One box. Build it, `start` it, `stop` it."""

    def __init__(self, settings: AgentSettings, *, outside: Outside | None = None) -> None:
        """Opens what must be right before anything starts.

        Raises:
            BadSettings, BadIdentity: a person must change something; the text says what.
            SpoolBusy: another agent uses this state folder.
            OSError, IndexFault: the state folder cannot be used.
        """
        self._settings, self._outside = settings, outside or Outside()
        cv2.setNumThreads(1)
        settings.agent.state_dir.mkdir(parents=True, exist_ok=True)
        self.version = installed_version("edgeloop")
        self._identity = Identity.load(
            edge=settings.agent.edge, key=settings.identity.key, certificate=settings.identity.certificate
        )
        self._open = ExitStack()
        try:
            self._build()
        except BaseException:
            self._open.close()
            raise

    # -- building --------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        settings, state = self._settings, self._settings.agent.state_dir
        root = _factory_root(settings.release.root)
        self.spool = _open_spool(settings, self._outside)
        self._open.callback(self.spool.close)
        self.meter = Meter()
        self.feeds: dict[str, CameraFeed] = {}
        self._journal: Journal = FileJournal(settings.journal.path) if settings.journal.path else NoJournal()
        self._open.callback(self._journal.close)
        self._checkpoint = Checkpoint(state / "counters.json")
        self._build_uplink()
        self._line = self._follow(settings.agent.line, folder=state, root=root, gate=False)
        self.inspector, self.updater, self.updates = self._line.inspector, self._line.updater, self._line.updates
        self.gate: Following | None = None
        if settings.cascade is not None:
            gate_line = settings.cascade.gate_line
            self.gate = self._follow(gate_line, folder=state / "gate" / gate_line, root=root, gate=True)
        self._build_inspection()
        self._build_cameras()
        self._page = self._status_page()

    def _build_uplink(self) -> None:
        settings, outside = self._settings, self._outside
        edge = settings.agent.edge
        self._pulse = Pulse(
            edge=edge,
            line=settings.agent.line,
            version=self.version,
            clock=outside.clock,
            meter=self.meter,
            feeds=self.feeds,
            account=self.spool.account,
            model=self._model_state,
            free_bytes=partial(REAL_FS.free_bytes, settings.agent.state_dir),
            resent_bytes=lambda: self.uplink.stats().resent_bytes,
            cascade=self._cascade_health,
        )
        self.uplink = Uplink(
            spool=self.spool,
            link=outside.link or open_link(edge, settings.broker, line=settings.agent.line),
            edge=edge,
            settings=UplinkSettings(
                version=self.version,
                heartbeat_s=settings.uplink.heartbeat_s,
                bytes_per_s=settings.uplink.bytes_per_s,
            ),
            heartbeat=self._pulse.heartbeat,
            on_command=self._on_command,
            on_announce=self._on_announce,
            now=outside.clock.now,
            mono=outside.clock.mono,
            rng=outside.rng,
        )

    def _follow(self, line: str, *, folder: Path, root: bytes, gate: bool) -> Following:
        outside = self._outside
        return follow(
            line,
            folder=folder,
            settings=self._settings,
            root=root,
            signer=self._identity,
            send=_log_report if gate else self._send_report,
            dispensable=gate,
            box=self._box,
            clock=outside.clock,
            mint=outside.mint,
            rng=outside.rng,
        )

    def _build_inspection(self) -> None:
        settings, outside = self._settings, self._outside
        agent = settings.agent
        ledger = PeriodLedger(edge=agent.edge, line=agent.line, hour_s=agent.hour_s)
        saved = restore(self._checkpoint.load(), ledger=ledger)
        pace = Pace(bytes_per_hour=settings.selection.bytes_per_hour, hour_s=agent.hour_s, state=saved)
        self.selector = Selector(
            pace=pace, audit_share=settings.selection.audit_share, pi_min=settings.selection.pi_min, seed=agent.seed
        )
        counting = threading.Lock()
        self.cascade = self._build_cascade(ledger, counting)
        self.pipeline = Pipeline(
            inspector=self.inspector,
            put=self.spool.put,
            output=outside.output,
            journal=self._journal,
            selector=self.selector,
            ledger=ledger,
            envelopes=Envelopes(edge=agent.edge, line=agent.line, clock=outside.clock),
            terms=TermSource(),
            watch=self.updater,
            judged=self._judged,
            meter=self.meter,
            clock=outside.clock,
            hour_s=agent.hour_s,
            queue_frames=agent.queue_frames,
            cascade=self.cascade,
            counting=counting,
        )
        self.housekeeper = Housekeeper(
            edge=agent.edge,
            line=agent.line,
            pipeline=self.pipeline,
            ledger=ledger,
            pace=pace,
            checkpoint=self._checkpoint,
            flags=FlagInbox(agent.state_dir / "flags"),
            record=self.uplink.record,
            epoch=lambda: self.spool.epoch,
            clock=outside.clock,
            mint=outside.mint,
        )

    def _build_cascade(self, ledger: PeriodLedger, counting: threading.Lock) -> Cascade | None:
        section, gate, outside = self._settings.cascade, self.gate, self._outside
        if section is None or gate is None:
            return None
        return Cascade(
            gate=gate.inspector,
            line=self.inspector,
            policy=CascadePolicy(
                audit_share=section.audit_share, deadline_ms=section.deadline_ms, on_late=section.on_late
            ),
            second=SecondLook(meter=self.meter, watch=self.updater),
            gate_watch=gate.updater,
            gate_revoked=gate.revoked,
            hour=ledger.cascade,
            counting=counting,
            meter=self.meter,
            clock=outside.clock,
            rng=outside.rng,
        )

    def _build_cameras(self) -> None:
        capture = Capture(self._outside.clock, self._outside.mint, self.pipeline.room)
        for section in self._settings.cameras:
            self.feeds[section.name] = _feed(section, capture, self.pipeline.offer, self._outside)

    def _status_page(self) -> StatusPage | None:
        status = self._settings.status
        if status.port == 0:
            return None
        sources = Sources(
            edge=self._settings.agent.edge,
            line=self._settings.agent.line,
            version=self.version,
            pulse=self._pulse,
            updater=self.updater,
            uplink=self.uplink,
            selector=self.selector,
            gate_updater=self.gate.updater if self.gate else None,
        )
        try:
            return StatusPage(partial(snapshot, sources), host=status.host, port=status.port)
        except OSError as fault:
            raise BadSettings(f"status.port: {status.host}:{status.port} cannot be used: {fault.strerror}") from fault

    # -- running ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load the stored model, then inspect, then talk."""
        self.updater.boot()
        if self.gate is not None:
            self.gate.updater.boot()
        if self.cascade is not None:
            self.cascade.start()
        self.pipeline.start()
        for feed in self.feeds.values():
            feed.start()
        self.housekeeper.start()
        self.uplink.start()
        for followed in self._followed():
            followed.updates.start()
        if self._page is not None:
            self._page.start()
        _log.info("agent started", version=self.version, release=self._model_state().release)

    def stop(self) -> None:
        """Regular end: nothing accepted is lost, counters are saved, a probation is not held against its release."""
        if self._page is not None:
            self._page.stop()
        for feed in self.feeds.values():
            feed.stop(STOP_S)
        self.pipeline.stop(STOP_S)
        if self.cascade is not None:
            self.cascade.stop(STOP_S)
        self.housekeeper.stop(STOP_S)
        for followed in self._followed():
            followed.updates.stop(STOP_S)
            followed.updater.stop()
        self.uplink.stop(STOP_S)
        self.close()
        _log.info("agent stopped")

    def close(self) -> None:
        """Give the state folder free: what `stop` ends with, and all an agent needs that was never started."""
        self._open.close()

    def run(self, stop: threading.Event) -> None:
        """Start, wait for `stop`, stop."""
        self.start()
        try:
            stop.wait()
        finally:
            self.stop()

    # -- connections between parts ---------------------------------------------------------------------------------

    def _send_report(self, report: SignedReport) -> None:
        self.uplink.record("report", report.id, report.encode())

    def _on_announce(self, announce: Announce) -> None:
        if announce.channel == self._settings.release.channel:
            self._hint()

    def _on_command(self, command: Command) -> None:
        match command.order:
            case CheckUpdate():
                self._hint()
            case SelectionBudget(line=line, bytes_per_hour=budget, audit_share=share):
                if line == self._settings.agent.line:
                    with self.pipeline.counting:
                        self.selector.set_budget(bytes_per_hour=budget, audit_share=share)
                    _log.info("selection budget changed", bytes_per_hour=budget, audit_share=share)

    def _judged(self, camera: str, reason: CannotJudge | None) -> None:
        self.feeds[camera].judged(reason)

    def _followed(self) -> list[Following]:
        return [self._line, *([self.gate] if self.gate else [])]

    def _hint(self) -> None:
        for followed in self._followed():
            followed.updates.hint()

    def _model_state(self) -> ModelState:
        return self._line.state()

    def _cascade_health(self) -> CascadeHealth | None:
        if self.cascade is None or self.gate is None:
            return None
        return cascade_health(
            self.cascade.total(), gate_line=self.gate.line, gate=self.gate.state(), trouble=self.cascade.trouble
        )

    def _box(self) -> Box:
        agent = self._settings.agent
        return Box(
            edge=agent.edge,
            version=self.version,
            hardware=agent.hardware,
            memory_mb=physical_memory_mb(),
            disk_mb=REAL_FS.free_bytes(agent.state_dir) >> 20,
        )


def _log_report(report: SignedReport) -> None:
    """How an update of the gate ended. The cloud takes reports of a box's own line only; heartbeats carry the rest."""
    _log.info("gate update", report=report.body)


def _factory_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise BadSettings(f"release.root: {path}: {fault.strerror}; copy the factory's root.json there") from fault


def _open_spool(settings: AgentSettings, outside: Outside) -> Spool:
    limits = settings.spool
    return Spool(
        settings.agent.state_dir / "spool",
        edge=settings.agent.edge,
        now=outside.clock.now,
        mono=outside.clock.mono,
        rng=outside.rng,
        limits=Limits(
            max_bytes=limits.max_bytes, ballast_bytes=limits.ballast_bytes, min_free_bytes=limits.min_free_bytes
        ),
    )


def _feed(section: CameraSection, capture: Capture, deliver: Callable[[Frame], None], outside: Outside) -> CameraFeed:
    try:
        opener = camera_kind(section.kind)
    except ValueError as fault:
        raise BadSettings(f"cameras.{section.name}.kind: {fault}") from fault

    def open_camera() -> Any:
        return opener(section.name, section.options, capture)

    return CameraFeed(
        name=section.name,
        open_camera=open_camera,
        deliver=deliver,
        mono=outside.clock.mono,
        rng=outside.rng,
        silent_after_s=section.silent_after_s,
    )
