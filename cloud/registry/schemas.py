"""The registry's words."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel

from cloud.db.tables import BaseRow, Candidate
from cloud.registry.states import State
from models.contracts.base import parse_as
from models.contracts.model_manifest import AdapterManifest, BaseManifest


class StoredBase(NamedTuple):
    """A frozen base and the blob of the checkpoint that adapters are trained on; those of its tokenizer and language
    head where it has a language. Without a head of its own it is the embedding table."""

    manifest: BaseManifest
    checkpoint: str
    tokenizer: str | None = None
    language_head: str | None = None

    @property
    def sha(self) -> str:
        """The base's name: the digest of its manifest."""
        return self.manifest.digest()


class CandidateView(BaseModel):
    """A candidate as answered. `size` is the bytes a box fetches; `report` is the gate's word in full."""

    id: int
    line: str
    release: int
    model_version: str
    state: State
    base: str
    parent: int | None
    snapshot: str | None
    size: int
    metrics: dict[str, Any]
    report: dict[str, Any]
    created_at: int
    decided_at: int | None


def stored(row: BaseRow) -> StoredBase:
    """The row with its manifest."""
    return StoredBase(parse_as(BaseManifest, row.manifest), row.checkpoint, row.tokenizer, row.language_head)


def manifest_of(row: Candidate) -> AdapterManifest:
    """The candidate's manifest."""
    return parse_as(AdapterManifest, row.manifest)


def release_bytes(manifest: AdapterManifest) -> int:
    """What a box fetches for this adapter release when it has nothing of it: the manifest and every blob once."""
    return len(manifest.encode()) + sum({blob.sha256: blob.length for blob in manifest.blobs()}.values())


def view(row: Candidate) -> CandidateView:
    """The row as answered."""
    return CandidateView(
        id=row.id,
        line=row.line,
        release=row.release,
        model_version=row.model_version,
        state=row.state,
        base=row.base_sha,
        parent=row.parent,
        snapshot=row.snapshot,
        size=release_bytes(manifest_of(row)),
        metrics=row.metrics,
        report=row.report,
        created_at=row.created_at,
        decided_at=row.decided_at,
    )
