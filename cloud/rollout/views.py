"""Release rows and standings as answered over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloud.db.tables import Release
from cloud.rollout.channel import manifest_of
from cloud.rollout.planner import Standing, totals
from cloud.rollout.schemas import BoxView, ReleaseView, RolloutStatus, Totals


def _fields(row: Release) -> dict[str, Any]:
    manifest = manifest_of(row)
    return {
        "line": row.line,
        "number": row.number,
        "adapter_release": row.adapter_release,
        "adapter_sha": row.adapter_sha,
        "model_version": manifest.model_version,
        "rollback_of": row.rollback_of,
        "state": row.state,
        "paused": row.state == "running" and manifest.plan.state == "paused",
        "wave": row.wave,
        "waves": len(manifest.plan.waves),
        "actor": row.actor,
        "reason": row.reason,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "live_at": row.live_at,
    }


def release_view(row: Release) -> ReleaseView:
    """A release without its boxes."""
    return ReleaseView.model_validate(_fields(row))


def status_view(row: Release, found: Sequence[Standing], waiting_for: str) -> RolloutStatus:
    """A release with its boxes."""
    boxes = [
        BoxView(
            edge=standing.edge, state=standing.state, wave=standing.wave,
            reason=None if standing.reason is None else standing.reason.value, since=standing.since,
            parts=standing.parts,
        )
        for standing in found
    ]  # fmt: skip
    counts = Totals.model_validate({**totals(found), "boxes": len(found)})
    return RolloutStatus.model_validate({**_fields(row), "totals": counts, "boxes": boxes, "waiting_for": waiting_for})
