"""What a box refuses about a release that is signed correctly. Pure rules; each refusal has its own reason.

A stolen channel key can name any release: these rules bound what it can do with it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from tuf.api.metadata import TargetFile

from models.contracts.base import Malformed, Manifest, decode
from models.contracts.control import ReportReason
from models.contracts.model_manifest import AdapterManifest
from models.contracts.release_manifest import ChannelManifest
from models.contracts.tuf_layout import adapter_manifest_path, adapter_patterns, check_target_path
from ota.client.floors import Floors
from ota.client.limits import Limits
from ota.errors import OtaError, RefusedError, SecurityError

M = TypeVar("M", bound=Manifest)


def clock_is_ahead(
    error: OtaError, server_time: datetime | None, floors: Floors, now: datetime, limits: Limits
) -> bool:
    """Whether "expired" comes from this box's clock running ahead: the server's time is near the last known time,
    ours is far beyond. This tells alarms apart and admits nothing.
    """
    if not isinstance(error, RefusedError) or error.reason is not ReportReason.EXPIRED or server_time is None:
        return False
    if server_time.tzinfo is None or floors.clock is None:
        return False
    return now - server_time > limits.clock_tolerance and server_time >= floors.clock - limits.clock_tolerance


def decoded(kind: type[M], data: bytes, reason: ReportReason) -> M:
    """Verified bytes to a manifest; `reason` is what an unreadable one is refused with."""
    try:
        return decode(kind, data)
    except Malformed as fault:
        raise RefusedError(f"signed, but not readable here: {fault}", reason=reason) from fault


def allowed_path(path: str) -> str:
    """A target path the box may ask for.

    Raises:
        SecurityError: TAMPERED, a path no publisher of ours writes.
    """
    try:
        return check_target_path(path)
    except ValueError as fault:
        raise SecurityError(str(fault), reason=ReportReason.TAMPERED) from fault


def sha256_of(target: TargetFile) -> str:
    """The target's SHA-256, by which everything is stored here.

    Raises:
        SecurityError: TAMPERED, it is listed with other algorithms only, which our publisher never does.
    """
    if "sha256" not in target.hashes:
        raise SecurityError(f"{target.path} is listed without a SHA-256", reason=ReportReason.TAMPERED)
    return target.hashes["sha256"]


def of_line(manifest: ChannelManifest, line: str, channel: str) -> ChannelManifest:
    """The manifest, if it is this line's and channel's and selects this line's adapter."""
    if (manifest.line, manifest.channel) != (line, channel):
        raise RefusedError(
            f"release {manifest.release} is for line {manifest.line}, channel {manifest.channel}, not for {line}",
            reason=ReportReason.WRONG_LINE,
        )
    if not manifest.adapter.path.startswith(adapter_patterns(line)[0].removesuffix("*")):
        raise RefusedError(f"{manifest.adapter.path} is another line's adapter", reason=ReportReason.WRONG_LINE)
    return manifest


def refuse_unlisted(manifest: ChannelManifest, *, adapter: TargetFile | None, base: TargetFile | None) -> None:
    """Refuse a model that the adapter or base role did not approve with that very digest."""
    for ref, entry in ((manifest.adapter, adapter), (manifest.base, base)):
        if entry is None or entry.hashes.get("sha256") != ref.sha256 or entry.length != ref.length:
            raise SecurityError(
                f"release {manifest.release} selects {ref.path}, which its role does not approve with that digest",
                reason=ReportReason.SIGNATURE,
            )


def refuse_revoked(floors: Floors, manifest: ChannelManifest) -> None:
    """Refuse what was ever revoked, also when the manifest no longer says so."""
    revoked = set(floors.revoked.get(manifest.line, []))
    if {manifest.adapter.sha256, manifest.base.sha256} & revoked:
        raise RefusedError(f"release {manifest.release} selects a revoked model", reason=ReportReason.REVOKED)
    least = floors.min_release.get(manifest.line, 0)
    if manifest.release < least:
        raise RefusedError(
            f"release {manifest.release} is below the lowest allowed, {least}", reason=ReportReason.REVOKED
        )


def refuse_foreign(channel: ChannelManifest, adapter: AdapterManifest) -> None:
    """Refuse an adapter for another line or another base."""
    expected = adapter_manifest_path(channel.line, adapter.release)
    if adapter.line != channel.line or channel.adapter.path != expected:
        raise RefusedError(f"the adapter is for line {adapter.line}", reason=ReportReason.WRONG_LINE)
    if adapter.base != channel.base.sha256:
        raise RefusedError(f"the adapter needs base {adapter.base[:12]}", reason=ReportReason.WRONG_BASE)
