"""What a release row is made of and which acts its state allows: no I/O, no clock of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cloud.clock import from_us
from cloud.db.tables import Candidate, Release
from cloud.http import Problem
from cloud.rollout.channel import manifest_of
from models.contracts.model_manifest import AdapterManifest
from models.contracts.release_manifest import ChannelManifest, Probe, RolloutPlan, TargetRef

MAX_REASON = 256


def text(words: str | None) -> str | None:
    """Words cut to what a manifest may carry."""
    return None if words is None else words[:MAX_REASON]


def channel_manifest(
    candidate: Candidate, adapter: AdapterManifest, *, number: int, channel: str, refs: tuple[TargetRef, TargetRef],
    plan: RolloutPlan, probe: Probe, actor: str, reason: str | None, rollback_of: int | None,
    before: ChannelManifest | None, at: datetime,
) -> ChannelManifest:  # fmt: skip
    """The manifest of a new release. What was revoked stays revoked, and the least allowed release never shrinks.

    Args:
        refs: base and adapter in the repository.
        before: the line's newest manifest.
    """
    base, target = refs
    if target.sha256 != candidate.manifest_sha:
        raise Problem(
            409, "other_bytes", f"Adapter release {adapter.release} is signed with other bytes than the registry holds."
        )
    return ChannelManifest(
        line=candidate.line, channel=channel, release=number, model_version=candidate.model_version, base=base,
        adapter=target, plan=plan, probe=probe, rollback_of=rollback_of, reason=text(reason), actor=actor,
        revoked=[] if before is None else before.revoked, min_release=0 if before is None else before.min_release,
        created_at=at,
    )  # fmt: skip


def row(manifest: ChannelManifest, *, adapter_release: int, now: int) -> Release:
    """The row of a new release."""
    return Release(
        line=manifest.line, number=manifest.release, adapter_release=adapter_release,
        adapter_sha=manifest.adapter.sha256, rollback_of=manifest.rollback_of, state="running", wave=0,
        wave_opened_at=now, manifest=document(manifest), actor=manifest.actor, reason=manifest.reason, created_at=now,
    )  # fmt: skip


def document(manifest: ChannelManifest) -> dict[str, Any]:
    """A manifest as the table keeps it."""
    found: dict[str, Any] = manifest.model_dump(mode="json", exclude_none=True)
    return found


def replan(release: Release, **changes: Any) -> None:
    """Change the plan of the row's manifest; the next sync signs it."""
    manifest = manifest_of(release)
    plan = RolloutPlan.model_validate({**manifest.plan.model_dump(), **changes})
    release.manifest = document(manifest.model_copy(update={"plan": plan}))


def require_running(release: Release, *, act: str) -> RolloutPlan:
    """The plan, if somebody may still act on the release.

    Raises:
        Problem: 409.
    """
    if release.state != "running":
        raise Problem(409, "not_running", f"Release {release.number} is {release.state}; there is nothing to {act}.")
    return manifest_of(release).plan


def moment(now: int) -> datetime:
    """A whole second, as manifests carry it."""
    return from_us(now - now % 1_000_000)
