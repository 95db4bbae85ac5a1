"""A trained model as a folder: base, checkpoint, adapter release and their blobs, every byte checked on the way back.

    base.json  files/<name>  checkpoint.safetensors  adapter.json  metrics.json  blobs/<sha256>  complete
    tokenizer.json  language_head.safetensors    of a base from a published checkpoint; the second where it is not tied

A joint reference has no base of its own: its folder holds an adapter release only. A base that was built but belongs to
no line yet has no release. ``complete`` is written last, so a folder without it is an interrupted run and counts as
absent.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.contracts.base import Malformed, decode, sha256_hex
from models.contracts.model_manifest import AdapterManifest, BaseManifest
from models.runtime.base import Base, SessionLimits
from models.runtime.inspector import LineModel, load_model

COMPLETE = "complete"
CHECKPOINT = "checkpoint.safetensors"
TOKENIZER = "tokenizer.json"
LANGUAGE_HEAD = "language_head.safetensors"


class BadBundle(ValueError):
    """A file is missing or is not what its manifest says."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What training made. `files` by name; `checkpoint` is what adapters are trained on; `metrics` are for the gate;
    `language` are the tokenizer and language head of a base that has them, by name. No box needs those."""

    base: BaseManifest
    files: Mapping[str, Path]
    checkpoint: bytes
    adapter: AdapterManifest
    blobs: Mapping[str, bytes]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    language: Mapping[str, Path] = field(default_factory=dict)

    def open_base(self) -> Base:
        """The base's graphs in ONNX Runtime."""
        return open_base(self.base, self.files)

    def model(self, *, release: int = 1) -> LineModel:
        """The release, loaded as a box would load it."""
        return load_model(
            self.open_base(), self.adapter, base_sha=self.base.digest(), blobs=dict(self.blobs), release=release
        )


def is_complete(folder: Path) -> bool:
    return (folder / COMPLETE).is_file()


def write_base(folder: Path, base: BaseManifest) -> None:
    """Describe a base whose files and checkpoint are in the folder already, and mark it complete."""
    (folder / "base.json").write_bytes(base.encode())
    (folder / COMPLETE).touch()


def read_base(folder: Path) -> tuple[BaseManifest, dict[str, Path]]:
    """A base and its files, every byte checked.

    Raises:
        BadBundle: something is missing or damaged; make it again.
    """
    try:
        base = decode(BaseManifest, (folder / "base.json").read_bytes())
        files = {file.name: folder / "files" / file.name for file in base.files}
        for file in base.files:
            _check(files[file.name], file.sha256, folder)
    except BadBundle:
        raise
    except (OSError, ValueError) as fault:
        raise BadBundle(f"{folder} is incomplete ({fault}): it holds no whole model; make it again") from fault
    return base, files


def language_files(folder: Path) -> dict[str, Path]:
    """What the folder has of a language, by name; empty for a base that was trained here."""
    return {name: folder / name for name in (TOKENIZER, LANGUAGE_HEAD) if (folder / name).is_file()}


def open_base(base: BaseManifest, files: Mapping[str, Path], *, limits: SessionLimits | None = None) -> Base:
    """The base's graphs in ONNX Runtime; data files are found beside their graphs."""
    tower, trunk = (str(files[base.file(role).name]) for role in ("tower", "trunk"))
    return Base(base, tower=tower, trunk=trunk, limits=limits)


def write_starting(folder: Path, bundle: Bundle) -> None:
    """Keep base, checkpoint and adapter release."""
    (folder / "files").mkdir(parents=True, exist_ok=True)
    for name, path in bundle.files.items():
        if path != folder / "files" / name:
            shutil.copyfile(path, folder / "files" / name)
    for name, path in bundle.language.items():
        if path != folder / name:
            shutil.copyfile(path, folder / name)
    (folder / "base.json").write_bytes(bundle.base.encode())
    (folder / CHECKPOINT).write_bytes(bundle.checkpoint)
    (folder / "metrics.json").write_text(json.dumps(dict(bundle.metrics)))
    write_adapter(folder, bundle.adapter, bundle.blobs)


def write_adapter(folder: Path, adapter: AdapterManifest, blobs: Mapping[str, bytes]) -> None:
    """Keep an adapter release, and mark the folder complete."""
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for blob in adapter.blobs():
        (folder / "blobs" / blob.sha256).write_bytes(blobs[blob.sha256])
    (folder / "adapter.json").write_bytes(adapter.encode())
    (folder / COMPLETE).touch()


def read_starting(folder: Path) -> Bundle:
    """The inverse of `write_starting`.

    Raises:
        BadBundle: something is missing or damaged; train again.
    """
    base, files = read_base(folder)
    try:
        checkpoint = (folder / CHECKPOINT).read_bytes()
        metrics = json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError) as fault:
        raise BadBundle(f"{folder} is incomplete ({fault}): it holds no whole model; make it again") from fault
    adapter, blobs = read_adapter(folder)
    return Bundle(base, files, checkpoint, adapter, blobs, metrics, language_files(folder))


def _check(path: Path, sha256: str, folder: Path) -> None:
    """A file too large to hold is read in pieces."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise BadBundle(f"{path} is damaged: make the model in {folder} again")


def _checked(path: Path, sha256: str, folder: Path) -> bytes:
    data = path.read_bytes()
    if sha256_hex(data) != sha256:
        raise BadBundle(f"{path} is damaged: make the model in {folder} again")
    return data


def read_adapter(folder: Path) -> tuple[AdapterManifest, dict[str, bytes]]:
    """The inverse of `write_adapter`.

    Raises:
        BadBundle: something is missing or damaged; train again.
    """
    try:
        adapter = decode(AdapterManifest, (folder / "adapter.json").read_bytes())
        names = [blob.sha256 for blob in adapter.blobs()]
        blobs = {name: _checked(folder / "blobs" / name, name, folder) for name in names}
    except BadBundle:
        raise
    except (OSError, Malformed) as fault:
        raise BadBundle(f"{folder} is incomplete ({fault}): it holds no whole model; make it again") from fault
    return adapter, blobs
