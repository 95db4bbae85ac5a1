"""Verified bytes to a model that reproduced its golden frames on this very box.

A base is loaded once and shared by every adapter on it, for as long as one of them is alive. Blobs are hashed again as
they are read. A base with external data is loaded by path from a folder of its own, whose files are links to the blobs.

Golden frames are the base's file of role ``golden``, see `models.runtime.golden`.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Protocol

import structlog

from edge_agent.updater.slots import Slot, Slots
from models.contracts.base import decode
from models.contracts.control import ReportReason
from models.contracts.model_manifest import AdapterManifest, BaseManifest
from models.runtime.adapter import BadAdapter
from models.runtime.base import BadBase, Base, SessionLimits
from models.runtime.golden import BadGolden, read_golden
from models.runtime.heads import BadArrays
from models.runtime.image import Pixels
from models.runtime.inspector import GoldenMismatch, LineModel, WrongBase, check_golden, load_model
from ota.errors import RefusedError

_log = structlog.get_logger("updater")


class Blobs(Protocol):
    """Bytes by digest; see `ota.client.BlobStore`."""

    def read(self, sha256: str) -> bytes: ...

    def path(self, sha256: str) -> Path: ...

    def keep(self, wanted: set[str]) -> int: ...


class CannotLoad(Exception):
    """Verified bytes that are no usable model on this box."""

    def __init__(self, reason: ReportReason, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class ModelLoader:
    """See the module."""

    def __init__(self, blobs: Blobs, *, folder: Path, limits: SessionLimits) -> None:
        self._blobs, self._folder, self._limits = blobs, folder, limits
        self._bases: weakref.WeakValueDictionary[str, Base] = weakref.WeakValueDictionary()

    def load(self, slot: Slot) -> LineModel:
        """The slot's model, proven on its golden frames.

        Raises:
            CannotLoad: wrong base, damaged adapter or head, or golden frames that come out differently.
            SecurityError: a blob changed on disk.
            FileNotFoundError: a blob is not here.
        """
        manifest = decode(AdapterManifest, self._blobs.read(slot.adapter))
        if manifest.base != slot.base:
            raise CannotLoad(ReportReason.WRONG_BASE, f"the adapter needs base {manifest.base[:12]}")
        blobs = {blob.sha256: self._blobs.read(blob.sha256) for blob in manifest.blobs()}
        try:
            base = self._base(slot.base)
            model = load_model(base, manifest, base_sha=slot.base, blobs=blobs, release=slot.release)
            check_golden(model, self._golden(base.manifest)[: manifest.golden.count])
        except (WrongBase, BadBase) as fault:
            raise CannotLoad(ReportReason.WRONG_BASE, str(fault)) from fault
        except (BadAdapter, BadArrays) as fault:
            raise CannotLoad(ReportReason.BAD_ADAPTER, str(fault)) from fault
        except (BadGolden, GoldenMismatch) as fault:
            raise CannotLoad(ReportReason.PROBE_FAILED, str(fault)) from fault
        return model

    def collect(self, slots: Slots) -> None:
        """Remove blobs that neither current, previous nor staged release needs."""
        wanted: set[str] = set()
        try:
            for slot in (slots.current, slots.previous, slots.staged):
                wanted |= self.digests(slot) if slot is not None else set()
            freed = self._blobs.keep(wanted)
        except (OSError, RefusedError) as fault:
            _log.warning("old releases stay on disk for now", detail=str(fault))
            return
        if freed:
            _log.info("removed old releases", bytes=freed)

    def digests(self, slot: Slot) -> set[str]:
        """Every blob the slot needs, as far as its manifests are here."""
        manifest = decode(AdapterManifest, self._blobs.read(slot.adapter))
        base = decode(BaseManifest, self._blobs.read(slot.base))
        return {
            slot.adapter,
            slot.base,
            *(blob.sha256 for blob in manifest.blobs()),
            *(file.sha256 for file in base.files),
        }

    def _base(self, digest: str) -> Base:
        base = self._bases.get(digest)
        if base is None:
            manifest = decode(BaseManifest, self._blobs.read(digest))
            tower, trunk = self._graphs(manifest, digest)
            base = Base(manifest, tower=tower, trunk=trunk, limits=self._limits)
            self._bases[digest] = base
        return base

    def _graphs(self, manifest: BaseManifest, digest: str) -> tuple[bytes | str, bytes | str]:
        tower, trunk = manifest.file("tower"), manifest.file("trunk")
        if not any(file.role == "data" for file in manifest.files):
            return self._blobs.read(tower.sha256), self._blobs.read(trunk.sha256)
        folder = self._folder / digest
        folder.mkdir(parents=True, exist_ok=True)
        for file in manifest.files:
            if file.role != "golden":
                self._blobs.read(file.sha256)  # hashed now, since ONNX Runtime opens it by path
                _link(self._blobs.path(file.sha256), folder / file.name)
        return str(folder / tower.name), str(folder / trunk.name)

    def _golden(self, manifest: BaseManifest) -> list[Pixels]:
        try:
            data = self._blobs.read(manifest.file("golden").sha256)
        except KeyError as fault:
            raise GoldenMismatch(
                "the base has no golden frames: nothing proves that this box computes the same"
            ) from fault
        return read_golden(data)


def _link(blob: Path, target: Path) -> None:
    if not target.exists() or not target.samefile(blob):
        target.unlink(missing_ok=True)
        os.link(blob, target)
