"""What a box has seen and will never go below: role versions, release numbers, time, revocations.

python-tuf keeps its memory in its cache, which a power cut can empty, and then accepts an old repository. Floors lie
outside that cache in two identical copies, both rewritten each time, so one torn copy loses nothing. A floor is
lowered only when its delegator grew and names other keys: then the role was taken away from whoever pushed the
number up. Here are the rules and the two files; when to raise them is the client's decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import Field

from models.contracts.base import Count, Malformed, Manifest, Sha256, Text, Timestamp, canonical, parse_as, parse_json
from models.contracts.base import sha256_hex as digest_of
from models.contracts.control import ReportReason
from models.contracts.release_manifest import ChannelManifest
from models.disk import REAL_FS, Fs, write_atomic
from ota.errors import SecurityError

COPIES = ("a.json", "b.json")


class RoleFloor(Manifest):
    """Highest verified version of a role, and a digest of the key ids that could sign it."""

    version: Count
    keys: Sha256


class ReleaseFloor(Manifest):
    """Highest release taken notice of on one line and channel, and the model it means."""

    release: Count
    base: Sha256
    adapter: Sha256


class Floors(Manifest):
    """`releases` by ``line/channel``, `revoked` and `min_release` by line."""

    schema_version: int = 1
    roles: dict[Text, RoleFloor] = Field(default_factory=dict)
    releases: dict[Text, ReleaseFloor] = Field(default_factory=dict)
    revoked: dict[Text, list[Sha256]] = Field(default_factory=dict)
    min_release: dict[Text, Count] = Field(default_factory=dict)
    clock: Timestamp | None = None


@dataclass(frozen=True, slots=True)
class SeenRole:
    """One verified role: its version, its keys, and the role that delegates to it (None for root)."""

    version: int
    keyids: tuple[str, ...]
    delegator: str | None

    @property
    def keys(self) -> str:
        return digest_of(canonical(sorted(self.keyids)))


def raise_roles(floors: Floors, seen: dict[str, SeenRole]) -> Floors:
    """Floors after a refresh.

    Raises:
        SecurityError: ROLLBACK, a role went back although its keys were not taken away.
    """
    roles = dict(floors.roles)
    for name, role in seen.items():
        floor = floors.roles.get(name)
        if floor is not None and role.version < floor.version and not rotated(floors, seen, name):
            raise SecurityError(
                f"{name} version {role.version} is below {floor.version}, seen before: an old repository is replayed",
                reason=ReportReason.ROLLBACK,
            )
        roles[name] = RoleFloor(version=role.version, keys=role.keys)
    return floors.model_copy(update={"roles": roles})


def rotated(floors: Floors, seen: dict[str, SeenRole], name: str) -> bool:
    """Whether the role has other keys by a newer delegator: its old numbers bind no longer."""
    floor, role = floors.roles.get(name), seen[name]
    if floor is None or role.delegator is None or floor.keys == role.keys:
        return False
    before = floors.roles.get(role.delegator)
    return before is not None and seen[role.delegator].version > before.version


def raise_release(floors: Floors, channel: ChannelManifest, *, new_keys: bool) -> Floors:
    """Floors after a channel manifest. `new_keys`: the channel role was rotated since.

    Raises:
        SecurityError: ROLLBACK for a lower number, TAMPERED for the same number with another model.
    """
    key = f"{channel.line}/{channel.channel}"
    floor = floors.releases.get(key)
    wanted = ReleaseFloor(release=channel.release, base=channel.base.sha256, adapter=channel.adapter.sha256)
    if floor is not None and not new_keys:
        if channel.release < floor.release:
            raise SecurityError(
                f"release {channel.release} is below {floor.release}, seen before: a rollback needs a higher number",
                reason=ReportReason.ROLLBACK,
            )
        if channel.release == floor.release and floor != wanted:
            raise SecurityError(
                f"release {channel.release} names another model than before", reason=ReportReason.TAMPERED
            )
    revoked = sorted({*floors.revoked.get(channel.line, []), *channel.revoked})
    least = max(floors.min_release.get(channel.line, 0), channel.min_release)
    return floors.model_copy(
        update={
            "releases": {**floors.releases, key: wanted},
            "revoked": {**floors.revoked, channel.line: revoked},
            "min_release": {**floors.min_release, channel.line: least},
        }
    )


def raise_clock(floors: Floors, *times: datetime) -> Floors:
    """Floors whose clock is at least every one of `times`."""
    return floors.model_copy(update={"clock": max(t for t in (floors.clock, *times) if t is not None)})


class FloorStore:
    """The two copies in one folder, and the marker that says there must be some."""

    def __init__(self, folder: Path, *, fs: Fs = REAL_FS) -> None:
        self._folder = folder
        self._fs = fs

    def load(self, *, provisioned: bool) -> Floors:
        """The floors; new ones on a box that never had any.

        Raises:
            SecurityError: TAMPERED, both copies are gone or damaged although this box had floors.
        """
        copies = [copy for name in COPIES if (copy := self._read(self._folder / name)) is not None]
        if copies:
            return _highest(copies)
        if provisioned or any((self._folder / name).exists() for name in COPIES):
            raise SecurityError(
                f"both copies of the version floors in {self._folder} are gone or damaged: an old release could be "
                "played to this box. Check who had access, then provision it again",
                reason=ReportReason.TAMPERED,
            )
        fresh = Floors()
        self.save(fresh)  # before anything is cached, so that a cache without floors always means tampering
        return fresh

    def save(self, floors: Floors) -> None:
        """Write both copies durably."""
        body = floors.model_dump(mode="json", exclude_none=True)
        data = canonical({"floors": body, "sha256": digest_of(canonical(body))})
        for name in COPIES:
            write_atomic(self._folder / name, data, fs=self._fs)

    @staticmethod
    def _read(path: Path) -> Floors | None:
        try:
            document = parse_json(path.read_bytes())
            if digest_of(canonical(document["floors"])) != document["sha256"]:
                return None
            return parse_as(Floors, document["floors"])
        except (OSError, Malformed, KeyError, TypeError):
            return None  # the other copy answers; both unreadable is refused by the caller


def _highest(copies: list[Floors]) -> Floors:
    """The later of two copies: a save interrupted between them leaves the first one ahead."""
    return max(copies, key=lambda floors: (floors.clock is not None, floors.clock, sum_of(floors)))


def sum_of(floors: Floors) -> int:
    """Sum of all version numbers: of two copies with one clock, the later has the larger sum."""
    return sum(r.version for r in floors.roles.values()) + sum(r.release for r in floors.releases.values())
