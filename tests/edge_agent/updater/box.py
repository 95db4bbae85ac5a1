"""A box with a fake release source: real models, real files, no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.clock import Clock
from edge_agent.decision import decide
from edge_agent.updater.eligible import Box
from edge_agent.updater.loader import ModelLoader
from edge_agent.updater.reports import Reporter
from edge_agent.updater.slots import SlotStore
from edge_agent.updater.updater import Updater
from models.contracts.base import decode, sha256_hex
from models.contracts.control import DeviceReport, ReportReason, SignedReport
from models.contracts.release_manifest import ChannelManifest, Probe, RolloutPlan, TargetRef, Wave
from models.disk import REAL_FS, Fs
from models.runtime.base import SessionLimits
from models.runtime.inspector import Inspector, inspect
from ota.errors import SecurityError
from tests.edge_agent.making import HandClock, minting
from tests.models.runtime.tiny import NOW, TinyRelease, part, tiny_base


def plan(**fields: object) -> RolloutPlan:
    return RolloutPlan.model_validate({"salt": "s", "waves": [Wave(percent=100)]} | fields)


def channel(
    number: int,
    release: TinyRelease,
    *,
    probe: Probe | None = None,
    rollout: RolloutPlan | None = None,
    **fields: object,
) -> ChannelManifest:
    base = tiny_base() if release.manifest.base == tiny_base().sha else tiny_base(1)
    adapter_bytes, base_bytes = release.manifest.encode(), base.manifest.encode()
    return ChannelManifest.model_validate(
        {
            "line": "cells",
            "channel": "stable",
            "release": number,
            "model_version": release.manifest.model_version,
            "base": TargetRef(path="base/tiny/v1.manifest.json", sha256=base.sha, length=len(base_bytes)),
            "adapter": TargetRef(path="adapter/cells/r1", sha256=release.sha, length=len(adapter_bytes)),
            "probe": probe or Probe(probation_parts=3),
            "plan": rollout or plan(),
            "actor": "test",
            "created_at": NOW,
        }
        | fields
    )


class MemoryBlobs:
    """Blobs in memory; hashes again when read, like the real store."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def read(self, sha256: str) -> bytes:
        if sha256 not in self.held:
            raise FileNotFoundError(sha256)
        data = self.held[sha256]
        if sha256_hex(data) != sha256:
            del self.held[sha256]
            raise SecurityError("changed on disk", reason=ReportReason.TAMPERED)
        return data

    def path(self, sha256: str) -> Path:
        raise AssertionError("tiny bases have no external data")

    def keep(self, wanted: set[str]) -> int:
        gone = [sha for sha in self.held if sha not in wanted]
        return sum(len(self.held.pop(sha)) for sha in gone)


@dataclass
class FakeReleases:
    """Says `news`, or raises it; fetching puts the release's bytes into the blobs."""

    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    news: ChannelManifest | Exception | None = None
    known: dict[str, TinyRelease] = field(default_factory=dict)
    fetched: int = 0
    bad: frozenset[str] = frozenset()

    def offer(self, number: int, release: TinyRelease, **fields: object) -> ChannelManifest:
        self.known[release.sha] = release
        self.news = channel(number, release, **fields)
        return self.news

    def check(self, line: str, channel: str) -> ChannelManifest:
        assert (line, channel) == ("cells", "stable")
        if isinstance(self.news, Exception):
            raise self.news
        assert self.news is not None
        return self.news

    def fetch(self, channel: ChannelManifest) -> object:
        self.fetched += 1
        release = self.known[channel.adapter.sha256]
        base = tiny_base() if release.manifest.base == tiny_base().sha else tiny_base(1)
        self.blobs.held |= release.blobs | base.files
        self.blobs.held[release.sha] = release.manifest.encode()
        self.blobs.held[base.sha] = base.manifest.encode()
        return None

    def revoked(self, line: str) -> frozenset[str]:
        return self.bad


class Unsigned:
    edge = "edge-1"

    def sign_report(self, report: DeviceReport) -> SignedReport:
        return SignedReport(id=report.id, edge=self.edge, body=report.encode().decode(), signature="")


class Station:
    """One box; `restart` is a new process on the same disk."""

    def __init__(self, folder: Path, *, fs: Fs = REAL_FS, dispensable: bool = False) -> None:
        self.folder, self.fs, self.dispensable = folder, fs, dispensable
        self.hand = HandClock()
        self.releases = FakeReleases()
        self.reports: list[DeviceReport] = []
        self.box = Box(edge="edge-1", version="1.2.0", hardware=None, memory_mb=1000, disk_mb=1000)
        self.woken = 0
        self.restart()

    def restart(self, *, boot: bool = True) -> None:
        clock: Clock = self.hand.clock()
        self.store = SlotStore(self.folder / "slots.json", fs=self.fs)
        self.inspector = Inspector()
        send: Callable[[SignedReport], None] = lambda r: self.reports.append(decode(DeviceReport, r.body.encode()))  # noqa: E731
        self.updater = Updater(
            releases=self.releases,
            loader=ModelLoader(self.releases.blobs, folder=self.folder / "bases", limits=SessionLimits()),
            inspector=self.inspector,
            store=self.store,
            reporter=Reporter(
                line="cells", store=self.store, signer=Unsigned(), send=send, clock=clock, mint=minting()
            ),
            box=lambda: self.box,
            line="cells",
            channel="stable",
            clock=clock,
            wake=self._wake,
            dispensable=self.dispensable,
        )
        if boot:
            self.updater.boot()

    def _wake(self) -> None:
        self.woken += 1

    def see(self, count: int, *, first: int = 0) -> None:
        """Inspect `count` different parts."""
        for seed in range(first, first + count):
            pixels = part(seed)
            found = inspect(self.inspector.current, pixels)
            judged = decide(
                found.probabilities,
                classes=found.model.head.classes,
                thresholds=found.model.thresholds,
                reason=found.reason,
                latency_ms=found.latency_ms,
            )
            self.updater.inspected(found, judged, pixels)

    def take(self, number: int, release: TinyRelease, **fields: object) -> None:
        """Offer, check, and let it through its probation."""
        self.releases.offer(number, release, **fields)
        self.updater.check()
        self.see(3)
        self.updater.conclude()

    @property
    def running(self) -> int | None:
        return self.inspector.current.release if self.inspector.current else None

    @property
    def last(self) -> DeviceReport:
        return self.reports[-1]
