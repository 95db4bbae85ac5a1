"""A small plant for the tests of `ota`: keys, one base, adapters, a channel, and a clock that stands still."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from models.contracts.base import sha256_hex
from models.contracts.model_manifest import AdapterManifest, BaseManifest
from models.contracts.release_manifest import ChannelManifest
from models.disk import Fs, RealFs
from ota.keys import KeyFolder
from ota.repository import ReleaseRepository

LINE = "cells"
OTHER_LINE = "frames"
T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
PASSPHRASE = "correct horse battery"
CHUNK = 10_000


@dataclass
class Clock:
    """Now is what the test says."""

    at: datetime = T0

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **delta: float) -> None:
        self.at += timedelta(**delta)


def content(name: str, size: int) -> bytes:
    """Bytes that depend on the name only."""
    return random.Random(name).randbytes(size)


def blob(data: bytes) -> dict[str, Any]:
    return {"sha256": sha256_hex(data), "length": len(data)}


def base_file(role: str, name: str, data: bytes) -> dict[str, Any]:
    pieces = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    return {"role": role, "name": name, **blob(data), "chunks": [blob(piece) for piece in pieces]}


def base_contents(version: int) -> dict[str, bytes]:
    """The trunk changes only in its last chunk between versions."""
    return {
        "tower.onnx": content("tower", 25_000),
        "trunk.onnx": content("trunk", 30_000) + content(f"trunk-{version}", 5_000),
    }


def base_manifest(version: int = 1, created_at: datetime = T0) -> BaseManifest:
    files = base_contents(version)
    return BaseManifest.model_validate(
        {
            "family": "nano-mono",
            "version": version,
            "preset": "nano",
            "tower_kind": "efficientnet_lite",
            "preprocessing": {"width": 224, "height": 224, "mean": [127, 127, 127], "std": [128, 128, 128]},
            "embedding": 64,
            "grid": [7, 7],
            "token_width": 64,
            "files": [base_file(name.split(".")[0], name, data) for name, data in files.items()],
            "lora": [],
            "quantization": "w8a8",
            "opset": 21,
            "parameters": 1000,
            "pretrained": "none",
            "licence": "Apache-2.0",
            "created_at": created_at,
        }
    )


def adapter_blobs(release: int, line: str = LINE) -> dict[str, bytes]:
    return {kind: content(f"{line}-{release}-{kind}", 3_000) for kind in ("onnx_adapter", "head", "refs")}


def adapter_manifest(
    release: int, *, base: str, line: str = LINE, created_at: datetime = T0, **changes: Any
) -> AdapterManifest:
    blobs = adapter_blobs(release, line)
    document = {
        "line": line,
        "release": release,
        "model_version": f"{line}-{release}",
        "base": base,
        "base_family": "nano-mono",
        "adapter": {"blob": blob(blobs["onnx_adapter"]), "rank": 4, "dtype": "float32"},
        "head": {
            "kind": "linear",
            "classes": [{"name": "good", "defect": False}, {"name": "crack", "defect": True, "must_catch": True}],
            "blob": blob(blobs["head"]),
        },
        "thresholds": {"pass_below": 0.2, "call_at": 0.5, "reject_above": 0.8},
        "refs": blob(blobs["refs"]),
        "golden": {"count": 2, "embedding_tolerance": 1e-3, "prob_tolerance": 1e-3},
        "lineage": {"training_run": "r1", "code_version": "0.1.0", "seed": 0, "trained_at": created_at},
        "created_at": created_at,
        **changes,
    }
    return AdapterManifest.model_validate(document)


class FastFs(RealFs):
    """The real disk without waiting for it: for tests that are not about power cuts."""

    def write_new(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)

    def sync_folder(self, folder: Path) -> None:
        assert folder.is_dir()


class PowerCut(BaseException):
    """The process ends here: no handler of ours may go on."""


class CrashingFs(FastFs):
    """Ends the process before or after the `at`-th call that changes the disk; counts the calls."""

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.at, self.after, self.calls = at, after, 0

    def write_new(self, path: Path, data: bytes) -> None:
        self._step(lambda: FastFs.write_new(self, path, data))

    def rename(self, source: Path, target: Path) -> None:
        self._step(lambda: FastFs.rename(self, source, target))

    def unlink(self, path: Path) -> None:
        self._step(lambda: FastFs.unlink(self, path))

    def _step(self, act: Callable[[], None]) -> None:
        hit = self.calls == self.at
        self.calls += 1
        if hit and not self.after:
            raise PowerCut
        act()
        if hit:
            raise PowerCut


@dataclass
class Plant:
    """A repository folder and everything needed to sign into it."""

    folder: Path
    keys: KeyFolder
    clock: Clock = field(default_factory=Clock)
    fs: Fs = field(default_factory=FastFs)

    @property
    def repository(self) -> ReleaseRepository:
        return ReleaseRepository(self.folder, now=self.clock, fs=self.fs)

    def add_base(self, version: int = 1) -> None:
        source = self.folder.parent / f"base-{version}"
        source.mkdir(exist_ok=True)
        files = {}
        for name, data in base_contents(version).items():
            files[name] = source / name
            files[name].write_bytes(data)
        self.repository.add_base(base_manifest(version), files, self.keys.offline("base"), self.keys.online())

    def add_adapter(self, release: int, *, line: str = LINE, base_version: int = 1) -> None:
        base = self.repository.base_ref("nano-mono", base_version)
        manifest = adapter_manifest(release, base=base.sha256, line=line)
        proposal = self.repository.propose_adapter(manifest, adapter_blobs(release, line), self.keys.signer("trainer"))
        self.repository.endorse_adapter(line, proposal, self.keys.signer("gate"))

    def channel(
        self, release: int, *, adapter: int | None = None, line: str = LINE, base_version: int = 1, **changes: Any
    ) -> ChannelManifest:
        """The channel manifest for a release; the adapter has the same number unless said otherwise."""
        document = {
            "line": line,
            "channel": "stable",
            "release": release,
            "model_version": f"{line}-{adapter or release}",
            "base": self.repository.base_ref("nano-mono", base_version),
            "adapter": self.repository.adapter_ref(line, adapter or release),
            "plan": {"salt": "s", "waves": [{"percent": 100}]},
            "actor": "test",
            "created_at": self.clock(),
            **changes,
        }
        return ChannelManifest.model_validate(document)

    def release(self, number: int, **options: Any) -> int:
        """Publish a release whose adapter exists; returns the timestamp version."""
        return self.repository.publish(self.channel(number, **options), self.keys.online())

    def everything(self) -> dict[str, str]:
        """Digest per file of the repository, to see whether anything changed."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }
