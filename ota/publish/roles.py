"""Role metadata: who may sign what, for how long, and the bytes that come out. No I/O, the clock is an argument.

Delegations are terminating and disjoint, one adapter and one channel role per line (models.contracts.tuf_layout).
`signed_by` verifies with the delegator's own rules before anything is written, so a wrong key fails at the
publisher and not on every box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from models.contracts.tuf_layout import (
    BASE_ROLE,
    POLICIES,
    RolePolicy,
    adapter_patterns,
    adapter_role,
    base_patterns,
    channel_patterns,
    channel_role,
)
from ota.errors import PublishError

TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")
T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class LineKeys:
    """Public keys of one line's online roles."""

    trainer: Key
    gate: Key
    channel: Key


def policy_of(role: str) -> RolePolicy:
    """Policy of a role by its name: ``adapter-cells`` has the policy of ``adapter``."""
    return POLICIES[role] if role in POLICIES else POLICIES[role.split("-", 1)[0]]


def expiry(role: str, now: datetime) -> datetime:
    """When metadata of `role` signed at `now` expires."""
    return now.astimezone(UTC) + policy_of(role).lifetime


def half_spent(role: str, expires: datetime, now: datetime) -> bool:
    """Whether less than half of the role's lifetime is left: time to sign it again."""
    return expires - now.astimezone(UTC) < policy_of(role).lifetime / 2


def new_root(keys: Mapping[str, Sequence[Key]], *, version: int, now: datetime) -> Root:
    """Root metadata from public keys per top-level role."""
    root = Root(version=version, expires=expiry("root", now), consistent_snapshot=True)
    for role in TOP_LEVEL:
        root.roles[role] = Role([], POLICIES[role].threshold)
        for key in keys[role]:
            root.add_key(key, role)
    return root


def new_targets(base: Sequence[Key], *, now: datetime) -> Targets:
    """Top-level targets metadata: no files, one delegation to the base role."""
    targets = Targets(expires=expiry("targets", now), delegations=Delegations({}, {}))
    delegate(targets, BASE_ROLE, base, base_patterns())
    return targets


def delegate(targets: Targets, role: str, keys: Sequence[Key], patterns: list[str]) -> None:
    """Add one terminating delegation.

    Raises:
        PublishError: the role name is taken; a name is never used twice.
    """
    if targets.delegations is None or targets.delegations.roles is None:
        raise PublishError("targets metadata without delegations: this is no edgeloop repository")
    if role in targets.delegations.roles:
        raise PublishError(f"role {role} is delegated already")
    threshold = policy_of(role).threshold
    targets.delegations.roles[role] = DelegatedRole(role, [], threshold, terminating=True, paths=patterns)
    for key in keys:
        targets.add_key(key, role)


def delegate_line(targets: Targets, line: str, keys: LineKeys) -> None:
    """Add a line's adapter role (trainer and gate, both needed) and channel role."""
    delegate(targets, adapter_role(line), [keys.trainer, keys.gate], adapter_patterns(line))
    delegate(targets, channel_role(line), [keys.channel], channel_patterns(line))


def snapshot_of(files: Mapping[str, tuple[int, bytes]], *, version: int, now: datetime) -> Snapshot:
    """Snapshot over ``role -> (version, bytes)``. Length and hash are named, so no old file passes under a new name."""
    meta = {f"{role}.json": MetaFile.from_data(number, data, ["sha256"]) for role, (number, data) in files.items()}
    return Snapshot(version=version, expires=expiry("snapshot", now), meta=meta)


def timestamp_of(snapshot: tuple[int, bytes], *, version: int, now: datetime) -> Timestamp:
    """Timestamp that names exactly one snapshot."""
    number, data = snapshot
    return Timestamp(
        version=version,
        expires=expiry("timestamp", now),
        snapshot_meta=MetaFile.from_data(number, data, ["sha256"]),
    )


def signed_by(signed: T, signers: Sequence[Signer], *, role: str, delegator: Root | Targets) -> bytes:
    """Sign and verify against `delegator`.

    Raises:
        PublishError: these signers do not meet the role's threshold.
    """
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return checked(metadata, role=role, delegator=delegator)


def checked(metadata: Metadata[T], *, role: str, delegator: Root | Targets) -> bytes:
    """The bytes of signed metadata that `delegator` accepts for `role`.

    Raises:
        PublishError: too few valid signatures.
    """
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as fault:
        raise PublishError(f"{fault}: use the keys the repository delegates {role} to") from fault
    return metadata.to_bytes()
