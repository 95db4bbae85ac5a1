"""The publisher: what is signed into the repository, in which order, and what is refused before it is signed.

Order of a publish: target bytes, delegated role, targets, snapshot, timestamp last; a box sees nothing of it before the
new timestamp. Every step compares the wanted state with what lies on disk and writes only the difference, so a
publish repeated after a crash finishes it and a publish repeated without one changes nothing. One lock over
all processes. It approves nothing by itself: adapters come in through the gate's signature, bases through the
offline keys. Pruning of old adapters and hash bins for more than about 300 lines are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Targets

from models.contracts.base import decode
from models.contracts.model_manifest import AdapterManifest, BaseManifest
from models.contracts.release_manifest import ChannelManifest, TargetRef
from models.contracts.tuf_layout import (
    BASE_ROLE,
    adapter_manifest_path,
    adapter_role,
    base_manifest_path,
    channel_path,
    channel_role,
)
from models.disk import REAL_FS, Fs
from ota.errors import ConflictError, NotPublished
from ota.keys import KeyFolder, OnlineSigners
from ota.publish import approval, rules
from ota.publish.basefiles import store_base_files
from ota.publish.files import RepositoryFiles
from ota.publish.roles import TOP_LEVEL, delegate_line, half_spent
from ota.publish.writer import RoleWriter, line_keys, public_keys, signers_of


class ReleaseRepository:
    """One repository folder, served as it lies. All methods may be called from any process."""

    def __init__(self, folder: Path, *, now: Callable[[], datetime], fs: Fs = REAL_FS) -> None:
        self._files = RepositoryFiles(folder, fs=fs)
        self._now = now
        self._writer = RoleWriter(self._files, now)

    def create(self, keys: KeyFolder, lines: Sequence[str]) -> None:
        """Make every role of a new repository. A crash in it is finished by calling it again with the same keys.

        Raises:
            ConflictError: the folder holds a repository already.
        """
        with self._files.lock():
            if (self._files.metadata / "timestamp.json").exists():
                raise ConflictError(f"{self._files.folder} holds a repository already: add lines to it instead")
            self._files.lay_out()
            if not self._files.newest("root"):
                top = {role: public_keys(signers_of(keys, role)) for role in TOP_LEVEL}
                self._writer.write_root(top, keys.offline("root"))
            self._writer.create_roles(keys, lines)
            self._writer.make_visible(keys.online())

    def root_bytes(self) -> bytes:
        """The newest root metadata: what a box is provisioned with."""
        return self._files.read("root")

    def lines(self) -> list[str]:
        """Lines with a delegated channel role."""
        return [role.removeprefix("channel-") for role in self._writer.roles() if role.startswith("channel-")]

    def add_line(self, line: str, keys: KeyFolder) -> None:
        """Delegate a line's roles with the offline targets keys, empty for now. Repeating it changes nothing."""
        with self._files.lock():
            targets = self._files.role("targets")
            if channel_role(line) not in self._writer.roles():
                delegate_line(targets, line, line_keys(keys))
                self._writer.write_targets(targets, keys)
            self._writer.create_line_roles(line, keys)
            self._writer.make_visible(keys.online())

    def add_base(
        self,
        manifest: BaseManifest,
        files: Mapping[str, Path],
        offline_signers: Sequence[Signer],
        online: OnlineSigners,
    ) -> TargetRef:
        """Store a base's chunks and manifest, sign the base role, and make it visible. `files` by file name or role.

        Raises:
            PublishError: a file is missing or is not what the manifest says.
            ConflictError: that family and version exists with other bytes.
        """
        with self._files.lock():
            path = base_manifest_path(manifest.family, manifest.version)
            current = self._files.role(BASE_ROLE)
            rules.refuse_other_bytes(current, path, manifest.digest())
            if path not in current.targets:
                store_base_files(manifest, files, self._files)
                entry = self._files.add_target(path, manifest.encode())
                self._writer.write_delegated(BASE_ROLE, {**current.targets, path: entry}, offline_signers)
            self._writer.make_visible(online)
            return _ref(self._files.role(BASE_ROLE), path)

    def propose_adapter(self, manifest: AdapterManifest, blobs: Mapping[str, bytes], trainer: Signer) -> bytes:
        """Store an adapter release and return the adapter role's next version, signed by the trainer only.

        Blobs are found by their digest, whatever their keys. Nothing is visible to a box yet.

        Raises:
            PublishError: a blob is missing or differs from the manifest.
            ConflictError: the release number is taken by other bytes.
        """
        role = adapter_role(manifest.line)
        with self._files.lock():
            current = self._files.role(role)
            path = adapter_manifest_path(manifest.line, manifest.release)
            rules.refuse_other_bytes(current, path, manifest.digest())
            rules.listed_base(self._files.role(BASE_ROLE), manifest.base)
            added = approval.stored_targets(manifest, blobs.values(), self._files)
            return approval.proposal(current, added, role=role, trainer=trainer, now=self._now())

    def propose_renewal(self, line: str, trainer: Signer) -> bytes:
        """The adapter role unchanged but for version and expiry: its 7 days must not end for want of new adapters."""
        role = adapter_role(line)
        return approval.proposal(self._files.role(role), [], role=role, trainer=trainer, now=self._now())

    def endorse_adapter(self, line: str, proposal: bytes, gate: Signer) -> int:
        """Check a proposal, add the gate's signature and write it. Visible with the next publish.

        Raises:
            ConflictError: the role moved on meanwhile: propose again.
            PublishError: the proposal is not what the trainer may propose.
        """
        role = adapter_role(line)
        with self._files.lock():
            if approval.endorsed_already(proposal, self._files.read(role)):
                return self._files.newest(role)
            version, data = approval.endorsed(
                line,
                proposal,
                current=self._files.role(role),
                delegator=self._files.role("targets"),
                files=self._files,
                gate=gate,
                now=self._now(),
            )
            self._files.write_role(role, version, data)
            return version

    def publish(self, channel: ChannelManifest, online: OnlineSigners) -> int:
        """Make `channel` the line's release; returns the timestamp version boxes will see. Idempotent.

        The same release number may be signed again with another plan, revocations or reason, never with another model.

        Raises:
            ConflictError: the number went back, or was used for another model.
            PublishError: base or adapter is not approved, they do not belong together, or the adapter is revoked.
            NotPublished: the line or a named target does not exist.
        """
        with self._files.lock():
            role = self._files.role(channel_role(channel.line))
            adapters, bases = self._files.role(adapter_role(channel.line)), self._files.role(BASE_ROLE)
            adapter = decode(AdapterManifest, self._files.read_target(rules.approved(adapters, channel.adapter)))
            rules.approved(bases, channel.base)
            rules.refuse_unfit(channel, adapter)
            for entry in role.targets.values():
                rules.refuse_step_back(channel, decode(ChannelManifest, self._files.read_target(entry)))
            target = self._files.add_target(channel_path(channel.line, channel.channel), channel.encode())
            if role.targets.get(target.path) != target:
                self._writer.write_delegated(
                    channel_role(channel.line), {**role.targets, target.path: target}, [online.channel]
                )
            return self._writer.make_visible(online)

    def renew_timestamp(self, online: OnlineSigners) -> int:
        """Sign a fresh timestamp, and every channel role and the snapshot whose life is more than half spent."""
        with self._files.lock():
            for role in [channel_role(line) for line in self.lines()]:
                signed = self._files.role(role)
                if half_spent(role, signed.expires, self._now()):
                    self._writer.write_delegated(role, signed.targets, [online.channel])
            return self._writer.make_visible(online, renew=True)

    def replace_online_keys(self, root_signers: Sequence[Signer], online: OnlineSigners) -> int:
        """A new root with other snapshot and timestamp keys, and metadata signed by them, in one locked step.

        Versions start again from what lies on disk, so this also ends a fast-forward by a stolen key.
        """
        with self._files.lock():
            root = self._files.root()
            keys = {role: [root.keys[k] for k in root.roles[role].keyids] for role in TOP_LEVEL}
            keys |= {"snapshot": [online.snapshot.public_key], "timestamp": [online.timestamp.public_key]}
            self._writer.write_root(keys, root_signers)
            return self._writer.make_visible(online, renew=True, new_keys=True)

    def adapter_ref(self, line: str, release: int) -> TargetRef:
        """Where an approved adapter release is. Raises: NotPublished."""
        return _ref(self._files.role(adapter_role(line)), adapter_manifest_path(line, release))

    def base_ref(self, family: str, version: int) -> TargetRef:
        """Where an approved base is. Raises: NotPublished."""
        return _ref(self._files.role(BASE_ROLE), base_manifest_path(family, version))

    def current_channel(self, line: str, channel: str) -> ChannelManifest | None:
        """The newest signed release of a line, None before the first.

        Raises:
            NotPublished: the line does not exist.
        """
        entry = self._files.role(channel_role(line)).targets.get(channel_path(line, channel))
        return None if entry is None else decode(ChannelManifest, self._files.read_target(entry))

    def expiries(self) -> dict[str, datetime]:
        """When each role's newest metadata expires."""
        top = {
            "root": self._files.root().expires,
            "targets": self._files.role("targets").expires,
            "snapshot": self._files.snapshot().expires,
            "timestamp": self._files.timestamp().expires,
        }
        return top | {role: self._files.role(role).expires for role in self._writer.roles()}


def _ref(role: Targets, path: str) -> TargetRef:
    entry = role.targets.get(path)
    if entry is None:
        raise NotPublished(f"{path} is not published")
    return TargetRef(path=path, sha256=entry.hashes["sha256"], length=entry.length)
