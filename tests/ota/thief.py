"""What somebody with some of the keys, or none, can put on the release server. Used by the attack tests only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, MetaFile, Targets

from tests.ota.kit import Plant

Change = Callable[[Metadata], None]


@dataclass
class Thief:
    """Writes into the served folder past the publisher. Whose keys it uses is the test's choice."""

    plant: Plant

    @property
    def evil(self) -> Signer:
        return CryptoSigner.generate_ed25519()

    def newest(self, role: str) -> int:
        return max(int(path.name.split(".")[0]) for path in (self.plant.folder / "metadata").glob(f"*.{role}.json"))

    def load(self, role: str) -> Metadata:
        name = "timestamp.json" if role == "timestamp" else f"{self.newest(role)}.{role}.json"
        return Metadata.from_file(str(self.plant.folder / "metadata" / name))

    def write(self, role: str, metadata: Metadata) -> bytes:
        data = metadata.to_bytes()
        name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        (self.plant.folder / "metadata" / name).write_bytes(data)
        return data

    def resign(self, role: str, signers: list[Signer], change: Change, *, step: int = 1) -> bytes:
        """The role's next version with a change, signed by these."""
        metadata = self.load(role)
        metadata.signed.version += step
        change(metadata)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        return self.write(role, metadata)

    def list_role(self, role: str, data: bytes) -> None:
        """Snapshot and timestamp, by their stolen keys, over a forged role."""
        version = Metadata[Targets].from_bytes(data).signed.version

        def listed(metadata: Metadata) -> None:
            metadata.signed.meta[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])

        self.seal(listed)

    def seal(self, change: Change) -> None:
        """Change the snapshot and name it in a new timestamp."""
        snapshot = self.resign("snapshot", [self.plant.keys.signer("snapshot")], change)
        version = self.newest("snapshot")

        def named(metadata: Metadata) -> None:
            metadata.signed.snapshot_meta = MetaFile.from_data(version, snapshot, ["sha256"])

        self.resign("timestamp", [self.plant.keys.signer("timestamp")], named)

    def put_target(self, path: str, data: bytes) -> Change:
        """A change that lists these bytes, which are written where they would be served."""
        sha256 = hashlib.sha256(data).hexdigest()
        folder, _, name = path.rpartition("/")
        file = self.plant.folder / "targets" / folder / f"{sha256}.{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

        def listed(metadata: Metadata) -> None:
            from tuf.api.metadata import TargetFile

            metadata.signed.targets[path] = TargetFile.from_data(path, data, ["sha256"])

        return listed

    def channel(self, data: bytes, *, line: str = "cells") -> None:
        """A channel manifest signed with the stolen channel, snapshot and timestamp keys."""
        role = f"channel-{line}"
        change = self.put_target(f"channel/{line}/stable.json", data)
        self.list_role(role, self.resign(role, [self.plant.keys.signer("channel")], change))


def expire(metadata: Metadata) -> None:
    metadata.signed.expires -= timedelta(days=400)


def nothing(metadata: Metadata) -> None:
    """Change nothing but version and signatures."""
