"""Writing signed roles in their order, and making a set of them visible. One step per method, each repeatable.

Every step compares the wanted state with what lies on disk and writes only the difference. What may be listed at all
is decided before, in `rules` and `approval`; callers hold the repository's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import TargetFile, Targets

from models.contracts.tuf_layout import BASE_ROLE, adapter_role, channel_role
from ota.keys import OFFLINE_ROLES, KeyFolder, OnlineSigners
from ota.publish.files import RepositoryFiles
from ota.publish.roles import (
    LineKeys,
    delegate_line,
    expiry,
    half_spent,
    new_root,
    new_targets,
    signed_by,
    snapshot_of,
    timestamp_of,
)


class RoleWriter:
    """Signs and writes roles of one repository folder."""

    def __init__(self, files: RepositoryFiles, now: Callable[[], datetime]) -> None:
        self._files = files
        self._now = now

    def roles(self) -> list[str]:
        """Every delegated role."""
        delegations = self._files.role("targets").delegations
        return list(delegations.roles or {}) if delegations else []

    def write_root(self, keys: Mapping[str, Sequence[Key]], signers: Sequence[Signer]) -> None:
        """The next root with these keys per top-level role, signed by the keys of the root before it."""
        version = self._files.newest("root") + 1
        root = new_root(keys, version=version, now=self._now())
        before = self._files.root() if version > 1 else root
        data = signed_by(root, signers, role="root", delegator=before)
        self._files.write_role("root", version, data)

    def create_roles(self, keys: KeyFolder, lines: Sequence[str]) -> None:
        """Whatever of targets, base and the lines' roles does not exist yet."""
        if not self._files.newest("targets"):
            targets = new_targets(public_keys(keys.offline("base")), now=self._now())
            for line in lines:
                delegate_line(targets, line, line_keys(keys))
            self.write_targets(targets, keys, version=1)
        if not self._files.newest(BASE_ROLE):
            self.write_delegated(BASE_ROLE, {}, keys.offline("base"))
        for line in lines:
            self.create_line_roles(line, keys)

    def create_line_roles(self, line: str, keys: KeyFolder) -> None:
        """A line's two roles, empty, where they do not exist yet."""
        if not self._files.newest(adapter_role(line)):
            self.write_delegated(adapter_role(line), {}, [keys.signer("trainer"), keys.signer("gate")])
        if not self._files.newest(channel_role(line)):
            self.write_delegated(channel_role(line), {}, [keys.signer("channel")])

    def write_targets(self, targets: Targets, keys: KeyFolder, *, version: int | None = None) -> None:
        """The next version of the top-level targets, signed offline."""
        targets.version = version or self._files.newest("targets") + 1
        targets.expires = expiry("targets", self._now())
        data = signed_by(targets, keys.offline("targets"), role="targets", delegator=self._files.root())
        self._files.write_role("targets", targets.version, data)

    def write_delegated(self, role: str, entries: Mapping[str, TargetFile], signers: Sequence[Signer]) -> None:
        """The next version of a delegated role. Boxes see it after `make_visible`."""
        version = self._files.newest(role) + 1
        signed = Targets(version=version, expires=expiry(role, self._now()), targets=dict(entries))
        data = signed_by(signed, signers, role=role, delegator=self._files.role("targets"))
        self._files.write_role(role, version, data)

    def make_visible(self, online: OnlineSigners, *, renew: bool = False, new_keys: bool = False) -> int:
        """Snapshot over the newest roles, then the timestamp; returns the timestamp's version.

        Writes nothing when both are up to date, unless `renew` asks for a fresh timestamp. `new_keys` signs both
        again because their keys were replaced.
        """
        snapshot = self._fresh_snapshot(online, new_keys=new_keys)
        known = (self._files.metadata / "timestamp.json").exists()
        current = self._files.timestamp() if known else None
        if current is not None and not renew and current.snapshot_meta.version == snapshot:
            return current.version
        data = self._files.read("snapshot", snapshot)
        version = current.version + 1 if current else 1
        signed = timestamp_of((snapshot, data), version=version, now=self._now())
        root = self._files.root()
        self._files.write_timestamp(signed_by(signed, [online.timestamp], role="timestamp", delegator=root))
        return version

    def _fresh_snapshot(self, online: OnlineSigners, *, new_keys: bool) -> int:
        roles = ["targets", *self.roles()]
        newest = {role: number for role in roles if (number := self._files.newest(role))}
        version = self._files.newest("snapshot")
        if version and not new_keys:
            current = self._files.snapshot()
            listed = {name.removesuffix(".json"): meta.version for name, meta in current.meta.items()}
            if listed == newest and not half_spent("snapshot", current.expires, self._now()):
                return version
        contents = {role: (number, self._files.read(role, number)) for role, number in newest.items()}
        signed = snapshot_of(contents, version=version + 1, now=self._now())
        data = signed_by(signed, [online.snapshot], role="snapshot", delegator=self._files.root())
        self._files.write_role("snapshot", version + 1, data)
        return version + 1


def signers_of(keys: KeyFolder, role: str) -> list[Signer]:
    """All signers of a top-level role or of base."""
    return keys.offline(role) if role in OFFLINE_ROLES else [keys.signer(role)]


def public_keys(signers: Iterable[Signer]) -> list[Key]:
    """Their public halves."""
    return [signer.public_key for signer in signers]


def line_keys(keys: KeyFolder) -> LineKeys:
    """The public keys a line's roles are delegated to."""
    return LineKeys(*(keys.signer(role).public_key for role in ("trainer", "gate", "channel")))
