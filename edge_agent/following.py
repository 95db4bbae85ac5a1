"""What it takes to follow one line's releases: client, slots, inspector, updater and loop, in a folder of their own.

A box follows its own line, and with a cascade the gate's line too. The two share nothing on disk, so trouble with one
(a refused release, a damaged slot file, blobs to collect) cannot touch the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.clock import Clock, Mint
from edge_agent.health import ModelState
from edge_agent.settings import AgentSettings
from edge_agent.updater.eligible import Box
from edge_agent.updater.loader import ModelLoader
from edge_agent.updater.loop import UpdateLoop
from edge_agent.updater.reports import Reporter, Signer
from edge_agent.updater.slots import SlotStore
from edge_agent.updater.updater import Updater
from models.contracts.control import SignedReport
from models.runtime.base import SessionLimits
from models.runtime.inspector import Inspector
from ota.client import ReleaseClient


@dataclass(frozen=True, slots=True)
class Following:
    """One followed line."""

    line: str
    inspector: Inspector
    slots: SlotStore
    updater: Updater
    updates: UpdateLoop

    def revoked(self) -> int | None:
        """The release that was revoked and left no model behind."""
        return self.slots.now.removed

    def state(self) -> ModelState:
        """What runs and where the updater is."""
        slots, model = self.slots.now, self.inspector.current
        return ModelState(
            release=model.release if model else 0,
            adapter=model.manifest_sha[:12] if model else None,
            previous=slots.previous.release if slots.previous else None,
            update_state=slots.state.value,
        )


def follow(
    line: str,
    *,
    folder: Path,
    settings: AgentSettings,
    root: bytes,
    signer: Signer,
    send: Callable[[SignedReport], None],
    box: Callable[[], Box],
    clock: Clock,
    mint: Mint,
    rng: random.Random,
    dispensable: bool,
) -> Following:
    """Put the parts together; nothing is loaded or fetched yet.

    Args:
        folder: of this line alone, whatever it was configured for before: slots name no line. Made if it is not there.
        root: the factory's root metadata.
        send: takes the box's signed reports about this line.
        dispensable: a revoked or failed release goes even when it leaves no model; see `Updater`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inspector, slots = Inspector(), SlotStore(folder / "slots.json")
    releases = ReleaseClient(
        folder=folder / "releases",
        root=root,
        url=settings.release.url,
        now=clock.now,
        provisioned=slots.now.current is not None,
    )
    updater = Updater(
        releases=releases,
        loader=ModelLoader(
            releases.blobs, folder=folder / "bases", limits=SessionLimits(threads=settings.agent.threads)
        ),
        inspector=inspector,
        store=slots,
        reporter=Reporter(line=line, store=slots, signer=signer, send=send, clock=clock, mint=mint),
        box=box,
        line=line,
        channel=settings.release.channel,
        clock=clock,
        dispensable=dispensable,
    )
    release = settings.release
    updates = UpdateLoop(updater, poll_s=release.poll_s, spread_s=release.spread_s, mono=clock.mono, rng=rng)
    return Following(line, inspector, slots, updater, updates)
