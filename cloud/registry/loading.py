"""From the registry to a model that runs: the same loading for gate, trainer and bench.

A base is loaded once per process and shared by every adapter on it. Bytes come from the verified cache.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path

from cloud.db.tables import Candidate
from cloud.lines.ports import Blobs
from cloud.registry.schemas import StoredBase, manifest_of
from cloud.registry.service import RegistryService
from models.contracts.model_manifest import AdapterManifest, BaseManifest
from models.runtime.base import Base, SessionLimits
from models.runtime.inspector import LineModel, load_model


def load_base(manifest: BaseManifest, blobs: Blobs, *, limits: SessionLimits | None = None) -> Base:
    """The base's graphs in ONNX Runtime.

    Raises:
        BadBase: the graphs do not match the manifest.
    """
    if not any(file.role == "data" for file in manifest.files):
        tower, trunk = (blobs.read(manifest.file(role).sha256) for role in ("tower", "trunk"))
        return Base(manifest, tower=tower, trunk=trunk, limits=limits)
    with tempfile.TemporaryDirectory(prefix="edgeloop-base-") as folder:
        paths = {file.name: _named(blobs.path(file.sha256), Path(folder) / file.name) for file in manifest.files}
        tower_path, trunk_path = (str(paths[manifest.file(role).name]) for role in ("tower", "trunk"))
        return Base(manifest, tower=tower_path, trunk=trunk_path, limits=limits)


def _named(source: Path, target: Path) -> Path:
    """A graph finds its external data by name beside it, so blobs get their names back: by hard link where possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


class ModelLoader:
    """Line models from the registry; keeps the bases it loaded. Thread-safe."""

    def __init__(self, *, registry: RegistryService, blobs: Blobs, limits: SessionLimits | None = None) -> None:
        self._registry, self._blobs, self._limits = registry, blobs, limits
        self._bases: dict[str, Base] = {}
        self._loading = threading.Lock()

    def base(self, sha: str) -> Base:
        """The loaded base; two are kept, the older one is dropped."""
        with self._loading:
            if sha not in self._bases:
                stored: StoredBase = self._registry.base(sha)
                while len(self._bases) > 1:
                    self._bases.pop(next(iter(self._bases)))
                self._bases[sha] = load_base(stored.manifest, self._blobs, limits=self._limits)
            return self._bases[sha]

    def load(self, one: Candidate | AdapterManifest, *, release: int) -> LineModel:
        """The model as a box would run it.

        Args:
            release: the channel release it is said to run under.

        Raises:
            WrongBase, BadAdapter, BadArrays: the files are not what the manifest says.
        """
        manifest = one if isinstance(one, AdapterManifest) else manifest_of(one)
        return load_line_model(manifest, self._blobs, base=self.base(manifest.base), release=release)


def load_line_model(manifest: AdapterManifest, blobs: Blobs, *, base: Base, release: int) -> LineModel:
    """One adapter release on a loaded base. Raises as `ModelLoader.load` does."""
    data = {blob.sha256: blobs.read(blob.sha256) for blob in manifest.blobs()}
    return load_model(base, manifest, base_sha=base.manifest.digest(), blobs=data, release=release)
