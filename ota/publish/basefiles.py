"""Cutting a base's files into the chunks its manifest names, and refusing files that are not those.

Chunks are written content-addressed, so a layer that did not change between versions is stored and fetched once.
Where the borders lie is the manifest's decision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from models.contracts.base import sha256_hex
from models.contracts.model_manifest import BaseFile, BaseManifest
from ota.errors import PublishError
from ota.publish.files import RepositoryFiles

MAX_CHUNK = 64 << 20
"""Largest chunk a box accepts."""


def store_base_files(manifest: BaseManifest, files: Mapping[str, Path], repository: RepositoryFiles) -> None:
    """Write every chunk of every file. `files` maps a file's name or its role to where it lies.

    Raises:
        PublishError: a file is missing, or its bytes are not the manifest's.
    """
    for file in manifest.files:
        source = files.get(file.name) or files.get(file.role)
        if source is None:
            raise PublishError(f"{file.name} of base {manifest.family} was not handed over")
        _store_file(manifest.family, file, source, repository)


def _store_file(family: str, file: BaseFile, source: Path, repository: RepositoryFiles) -> None:
    whole = hashlib.sha256()
    try:
        with source.open("rb") as stream:
            for chunk in file.chunks:
                if chunk.length > MAX_CHUNK:
                    raise PublishError(
                        f"{file.name}: a chunk of {chunk.length} bytes, {MAX_CHUNK} allowed: cut smaller"
                    )
                data = stream.read(chunk.length)
                if sha256_hex(data) != chunk.sha256:
                    raise PublishError(f"{source} is not the {file.name} its manifest describes: export it again")
                whole.update(data)
                repository.add_chunk(family, data)
            if stream.read(1) or whole.hexdigest() != file.sha256:
                raise PublishError(f"{source} is not the {file.name} its manifest describes: export it again")
    except OSError as fault:
        raise PublishError(f"cannot store {source}: {fault}") from fault
