"""What may not be published. Pure rules over role metadata and manifests; every refusal says what to do instead."""

from __future__ import annotations

from tuf.api.metadata import TargetFile, Targets

from models.contracts.model_manifest import AdapterManifest
from models.contracts.release_manifest import ChannelManifest, TargetRef
from ota.errors import ConflictError, NotPublished, PublishError


def refuse_other_bytes(role: Targets, path: str, sha256: str) -> None:
    """Refuse a path that is listed with another digest: a path is never used for other bytes."""
    entry = role.targets.get(path)
    if entry is not None and entry.hashes["sha256"] != sha256:
        raise ConflictError(f"{path} is published with other bytes: take the next number")


def approved(role: Targets, ref: TargetRef) -> TargetFile:
    """The role's entry for `ref`.

    Raises:
        NotPublished: not listed.
        PublishError: listed with another digest or length.
    """
    entry = role.targets.get(ref.path)
    if entry is None:
        raise NotPublished(f"{ref.path} is not approved: publish it first")
    if entry.hashes["sha256"] != ref.sha256 or entry.length != ref.length:
        raise PublishError(f"{ref.path} is approved with another digest: take the reference from the repository")
    return entry


def listed_base(bases: Targets, sha256: str) -> None:
    """Refuse an adapter whose base is not published: no box could ever run it."""
    if all(entry.hashes["sha256"] != sha256 for entry in bases.targets.values()):
        raise NotPublished(f"base {sha256[:12]} is not published: add the base before its adapters")


def refuse_unfit(channel: ChannelManifest, adapter: AdapterManifest) -> None:
    """Refuse an adapter of another line or base, and a revoked one."""
    if adapter.line != channel.line:
        raise PublishError(f"adapter release {adapter.release} belongs to line {adapter.line}")
    if adapter.base != channel.base.sha256:
        raise PublishError(f"adapter release {adapter.release} needs base {adapter.base[:12]}: name that base")
    if {channel.adapter.sha256, channel.base.sha256} & set(channel.revoked):
        raise PublishError("the release selects a digest that it revokes: choose another adapter or base")
    if channel.release < channel.min_release:
        raise PublishError(f"release {channel.release} is below its own min_release {channel.min_release}")


def refuse_step_back(channel: ChannelManifest, before: ChannelManifest) -> None:
    """Refuse a lower number, a number used for another model, and a lifted revocation.

    `before` may be the same channel or another channel of the line: a number means one model on all of them.
    """
    same_channel = before.channel == channel.channel
    if same_channel and channel.release < before.release:
        raise ConflictError(f"release {channel.release} is below {before.release}: roll back with a higher number")
    same_model = (channel.base.sha256, channel.adapter.sha256) == (before.base.sha256, before.adapter.sha256)
    if channel.release == before.release and not same_model:
        raise ConflictError(f"release {channel.release} is another model already: take {before.release + 1}")
    if same_channel and (channel.min_release < before.min_release or set(before.revoked) - set(channel.revoked)):
        raise PublishError("revocations and min_release are for ever: carry them over from the current release")
