"""Approval of adapters: what the trainer proposes and the gate endorses, two signatures by two services.

A proposal is the next version of a line's adapter role, signed once. It says nothing to any box until the gate has
checked it against the current version (exactly one step, additions only, every file present) and signed it too.
No I/O here beyond reading targets through the caller's `RepositoryFiles`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Targets

from models.contracts.base import Malformed, decode, sha256_hex
from models.contracts.model_manifest import AdapterManifest
from models.contracts.tuf_layout import adapter_manifest_path, adapter_patterns, adapter_role
from ota.errors import ConflictError, PublishError
from ota.paths import blob_paths
from ota.publish.files import RepositoryFiles, same_targets
from ota.publish.roles import checked, expiry

MAX_PROPOSAL_BYTES = 5_000_000
"""python-tuf's limit for delegated metadata on the box."""
CLOCK_TOLERANCE = timedelta(minutes=5)
"""Difference allowed between the trainer's clock and the gate's."""


def stored_targets(manifest: AdapterManifest, blobs: Iterable[bytes], files: RepositoryFiles) -> list[TargetFile]:
    """Write manifest and blobs content-addressed and return their entries. Blobs are matched by digest.

    Raises:
        PublishError: a blob the manifest names was not given, or has another length.
    """
    given = {sha256_hex(data): data for data in blobs}
    entries = []
    for path, blob in blob_paths(manifest).items():
        data = given.get(blob.sha256)
        if data is None or len(data) != blob.length:
            raise PublishError(f"{path}: the bytes with digest {blob.sha256[:12]} were not handed over")
        entries.append(files.add_target(path, data))
    entries.append(files.add_target(adapter_manifest_path(manifest.line, manifest.release), manifest.encode()))
    return entries


def proposal(current: Targets, additions: Iterable[TargetFile], *, role: str, trainer: Signer, now: datetime) -> bytes:
    """The next version of an adapter role with `additions`, signed once.

    Raises:
        ConflictError: a path is listed already with other bytes; paths are never reused.
    """
    targets = dict(current.targets)
    for entry in additions:
        if entry.path in targets and targets[entry.path].hashes != entry.hashes:
            raise ConflictError(f"{entry.path} is published already with other bytes: take the next release number")
        targets[entry.path] = entry
    metadata = Metadata(Targets(version=current.version + 1, expires=expiry(role, now), targets=targets))
    metadata.sign(trainer)
    return metadata.to_bytes()


def endorsed(
    line: str, data: bytes, *, current: Targets, delegator: Targets, files: RepositoryFiles, gate: Signer, now: datetime
) -> tuple[int, bytes]:
    """Version and bytes of a proposal with the gate's signature added.

    Raises:
        ConflictError: it is not the step that follows the current version, or it drops or changes an entry.
        PublishError: it is no such metadata, not the trainer's, or lists something that is not there.
    """
    metadata = _proposed(data)
    signed = metadata.signed
    if signed.version != current.version + 1:
        raise ConflictError(f"proposal is version {signed.version}, the next is {current.version + 1}: propose again")
    if not same_targets(current.targets, signed.targets):
        raise ConflictError("the proposal drops or changes a published adapter: propose again from the current state")
    if signed.delegations is not None or signed.expires > expiry(adapter_role(line), now) + CLOCK_TOLERANCE:
        raise PublishError("the proposal delegates further or outlives the role's policy: refuse the trainer's key")
    _check_additions(line, {p: t for p, t in signed.targets.items() if p not in current.targets}, files)
    metadata.sign(gate, append=True)
    return signed.version, checked(metadata, role=adapter_role(line), delegator=delegator)


def endorsed_already(data: bytes, current: bytes) -> bool:
    """Whether the current metadata is this very proposal with the second signature."""
    return _proposed(data).signed_bytes == Metadata.from_bytes(current).signed_bytes


def _proposed(data: bytes) -> Metadata[Targets]:
    if len(data) > MAX_PROPOSAL_BYTES:
        raise PublishError(f"a proposal of {len(data)} bytes; boxes read at most {MAX_PROPOSAL_BYTES}")
    try:
        metadata = Metadata[Targets].from_bytes(data)
    except RepositoryError as fault:
        raise PublishError(f"the proposal is no TUF metadata: {fault}") from fault
    if not isinstance(metadata.signed, Targets):
        raise PublishError(f"the proposal is {metadata.signed.type} metadata")
    return metadata


def _check_additions(line: str, added: Mapping[str, TargetFile], files: RepositoryFiles) -> None:
    prefix = adapter_patterns(line)[0].removesuffix("*")
    named: set[str] = set()
    for path, entry in added.items():
        if not path.startswith(prefix):
            raise PublishError(f"{path} is not the adapter role's to list")
        content = files.read_target(entry)
        if path.endswith(".manifest.json"):
            named |= {path, *_complete(line, path, content, added)}
    if stray := set(added) - named:
        raise PublishError(f"{min(stray)} belongs to no manifest in the proposal")


def _complete(line: str, path: str, content: bytes, added: Mapping[str, TargetFile]) -> set[str]:
    try:
        manifest = decode(AdapterManifest, content)
    except Malformed as fault:
        raise PublishError(f"{path}: {fault}") from fault
    if manifest.line != line or adapter_manifest_path(line, manifest.release) != path:
        raise PublishError(f"{path} is the manifest of {manifest.line} release {manifest.release}")
    for blob_path, blob in blob_paths(manifest).items():
        if blob_path not in added or added[blob_path].hashes.get("sha256") != blob.sha256:
            raise PublishError(f"{path} names {blob_path}, which the proposal does not list with that digest")
    return set(blob_paths(manifest))
