"""Signing keys on disk: the ceremony that makes them, and loading them.

Offline keys (root, targets, base) are PKCS#8 PEM encrypted with the operator's passphrase and belong on a token or a
stick in a safe; online keys are PEM files with mode 0400, one per service. All of them are Ed25519. ``keys.json``
beside them holds public halves only, so status needs no passphrase. Existing keys are never overwritten. Hardware
tokens and cloud key services are not handled here: the publisher takes any securesystemslib `Signer`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Signer

from models.contracts.base import canonical, parse_json
from models.contracts.tuf_layout import POLICIES
from models.disk import REAL_FS
from ota.errors import PublishError

OFFLINE_ROLES = ("root", "targets", "base")
ONLINE_ROLES = ("trainer", "gate", "channel", "snapshot", "timestamp")
MIN_PASSPHRASE = 8
INVENTORY = "keys.json"


class KeyFault(PublishError):
    """A key cannot be made or opened; the text says which file and why."""


@dataclass(frozen=True, slots=True)
class OnlineSigners:
    """What the release service holds. It can choose among approved models and approve none."""

    channel: Signer
    snapshot: Signer
    timestamp: Signer

    @classmethod
    def load(cls, folder: Path) -> OnlineSigners:
        """The three keys from a folder with ``channel.pem``, ``snapshot.pem`` and ``timestamp.pem``."""
        return cls(*(load_online(folder / f"{role}.pem") for role in ("channel", "snapshot", "timestamp")))


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """The result of a ceremony. The passphrase never shows in a representation."""

    folder: Path
    passphrase: bytes = field(repr=False)

    def offline(self, role: str) -> list[Signer]:
        """Every signer of root, targets or base, in order of file name."""
        count = POLICIES[role].keys
        return [load_offline(self.folder / "offline" / f"{role}-{n}.pem", self.passphrase) for n in range(1, count + 1)]

    def signer(self, role: str) -> Signer:
        """One online signer: trainer, gate, channel, snapshot or timestamp."""
        return load_online(self.folder / "online" / f"{role}.pem")

    def online(self) -> OnlineSigners:
        """The release service's three signers."""
        return OnlineSigners.load(self.folder / "online")

    def inventory(self) -> dict[str, Any]:
        """Roles, files and public keys."""
        return inventory(self.folder)


def ceremony(folder: Path, *, lines: Sequence[str], passphrase: str | bytes) -> KeyFolder:
    """Make every key of a new repository.

    Raises:
        KeyFault: the passphrase is too short, or `folder` holds keys already; keys are never overwritten.
    """
    secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
    if len(secret) < MIN_PASSPHRASE:
        raise KeyFault(f"the passphrase of the offline keys needs at least {MIN_PASSPHRASE} bytes")
    if (folder / INVENTORY).exists():
        raise KeyFault(f"{folder} holds keys already: choose an empty folder, keys are never overwritten")
    roles = _make_all(folder, secret)
    document = {"schema_version": 1, "lines": list(lines), "roles": roles}
    _write_secret(folder / INVENTORY, canonical(document), mode=0o444)
    for made in (folder / "offline", folder / "online", folder):
        REAL_FS.sync_folder(made)
    return KeyFolder(folder, secret)


def load_online(path: Path) -> Signer:
    """A signer from an unencrypted PEM file.

    Raises:
        KeyFault: missing, unreadable for this user, readable for everybody, or no private key.
    """
    if path.exists() and path.stat().st_mode & 0o077:
        raise KeyFault(f"{path} can be read by other users: chmod 0400 it")
    return _load(path, None)


def load_offline(path: Path, passphrase: str | bytes) -> Signer:
    """A signer from an encrypted PEM file.

    Raises:
        KeyFault: missing, unreadable, or the passphrase is wrong.
    """
    return _load(path, passphrase.encode() if isinstance(passphrase, str) else passphrase)


def inventory(folder: Path) -> dict[str, Any]:
    """The public list of a key folder's roles, files and keys.

    Raises:
        KeyFault: there is none.
    """
    path = folder / INVENTORY
    try:
        return cast("dict[str, Any]", parse_json(path.read_bytes()))
    except (OSError, ValueError) as fault:
        raise KeyFault(f"no key inventory at {path}: run `edgeloop ota keys ceremony` first ({fault})") from fault


def _make_all(folder: Path, secret: bytes) -> dict[str, list[dict[str, Any]]]:
    for part in ("offline", "online"):
        (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
    roles: dict[str, list[dict[str, Any]]] = {}
    for role in OFFLINE_ROLES:
        for number in range(1, POLICIES[role].keys + 1):
            made = _make(folder, f"offline/{role}-{number}.pem", BestAvailableEncryption(secret))
            roles.setdefault(role, []).append(made)
    for role in ONLINE_ROLES:
        roles[role] = [_make(folder, f"online/{role}.pem", NoEncryption())]
    return roles


def _make(folder: Path, name: str, encryption: KeySerializationEncryption) -> dict[str, Any]:
    private = Ed25519PrivateKey.generate()
    _write_secret(folder / name, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), mode=0o400)
    public = CryptoSigner(private).public_key
    return {"file": name, "keyid": public.keyid, "public": public.to_dict()}


def _write_secret(path: Path, data: bytes, *, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as taken:
        raise KeyFault(f"{path} exists already: keys are never overwritten, choose an empty folder") from taken
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _load(path: Path, passphrase: bytes | None) -> Signer:
    try:
        private = load_pem_private_key(path.read_bytes(), passphrase)
        return CryptoSigner(private)
    except OSError as fault:
        raise KeyFault(f"cannot read the key {path}: {fault.strerror}") from fault
    except (TypeError, ValueError) as fault:
        hint = "is the passphrase right?" if passphrase is not None else "an online key is unencrypted PKCS#8 PEM"
        raise KeyFault(f"cannot open the key {path}: {hint}") from fault
