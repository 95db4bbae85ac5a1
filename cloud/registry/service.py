"""The registry: immutable bases and adapter releases, and the gate's decision on each.

Blobs are in the object store before a row names them, and every byte is checked against its manifest on the way in.
An entry is added once: the same again is the same entry, anything else under its number is a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from cloud import audit
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import BaseRow, Candidate
from cloud.http import Problem, not_found
from cloud.lines.ports import Blobs
from cloud.registry import repository
from cloud.registry.schemas import CandidateView, StoredBase, manifest_of, stored, view
from cloud.registry.states import State, WrongMove, move
from models.contracts.base import sha256_hex
from models.contracts.model_manifest import AdapterManifest, BaseManifest
from models.runtime.bundle import LANGUAGE_HEAD, TOKENIZER


class BadEntry(ValueError):
    """What was handed in is not what its manifest says, or contradicts what is there. A program must be mended."""


class RegistryService:
    """See the module."""

    def __init__(self, *, begin: Begin, reads: Begin, now: NowUs, blobs: Blobs) -> None:
        self._begin, self._reads, self._now, self._blobs = begin, reads, now, blobs

    def add_base(
        self, manifest: BaseManifest, files: Mapping[str, Path], checkpoint: bytes, *,
        language: Mapping[str, Path] | None = None, actor: str = "system",
    ) -> str:  # fmt: skip
        """Keep a base; returns its name. The same base twice is one; the second time may bring its language.

        Args:
            files: by `BaseFile.name`.
            checkpoint: what the trainer loads to train adapters on this base.
            language: `Bundle.language`: tokenizer and language head by file name, of a base that has them.

        Raises:
            BadEntry: a file is missing or has another digest, family and version are taken, or the base has another
                tokenizer or language head already.
        """
        for file in manifest.files:
            if file.name not in files:
                raise BadEntry(f"base {manifest.family} v{manifest.version}: there is no file {file.name}")
            data = files[file.name].read_bytes()
            if sha256_hex(data) != file.sha256:
                raise BadEntry(f"base {manifest.family} v{manifest.version}: {file.name} has another digest")
            self._blobs.add(data)
        kept = self._blobs.add(checkpoint)
        words = {name: self._blobs.add(path.read_bytes()) for name, path in (language or {}).items()}
        sha = manifest.digest()
        with self._begin() as session:
            row = session.get(BaseRow, sha)
            if row is None:
                self._refuse_taken(session, manifest)
                row = BaseRow(
                    sha256=sha, family=manifest.family, version=manifest.version,
                    manifest=manifest.model_dump(mode="json", exclude_none=True), checkpoint=kept,
                    created_at=self._now(),
                )  # fmt: skip
                session.add(row)
                self._audit(session, row, "base.added", actor)
            if self._add_language(row, words.get(TOKENIZER), words.get(LANGUAGE_HEAD)):
                self._audit(session, row, "base.language_added", actor)
        return sha

    @staticmethod
    def _add_language(row: BaseRow, tokenizer: str | None, head: str | None) -> bool:
        """Whether it is new. A base is frozen: it gets its language once, head and tokenizer together."""
        if tokenizer is None or (row.tokenizer, row.language_head) == (tokenizer, head):
            return False
        if row.tokenizer is not None:
            raise BadEntry(
                f"base {row.family} v{row.version} has another tokenizer or language head; raise the version"
            )
        row.tokenizer, row.language_head = tokenizer, head
        return True

    def _audit(self, session: Session, row: BaseRow, action: str, actor: str) -> None:
        audit.record(
            session, at=self._now(), actor=actor, action=action, subject=f"{row.family} v{row.version}",
            evidence={"sha256": row.sha256},
        )  # fmt: skip

    @staticmethod
    def _refuse_taken(session: Session, manifest: BaseManifest) -> None:
        taken = session.query(BaseRow).filter_by(family=manifest.family, version=manifest.version).first()
        if taken is not None:
            raise BadEntry(f"base {manifest.family} v{manifest.version} is there with other content; raise the version")

    def base(self, sha: str) -> StoredBase:
        """The base and its checkpoint's blob.

        Raises:
            Problem: 404.
        """
        with self._reads() as session:
            row = session.get(BaseRow, sha)
            if row is None:
                raise not_found("base", sha[:12])
            return stored(row)

    def current_base(self, line: str) -> StoredBase | None:
        """The base the line's next adapter is made for: the incumbent's, the newest candidate's or the newest."""
        with self._reads() as session:
            one = repository.incumbent(session, line) or repository.newest_candidate(session, line)
            row = session.get(BaseRow, one.base_sha) if one is not None else repository.newest_base(session)
            return None if row is None else stored(row)

    def next_release(self, line: str) -> int:
        """The number of the line's next adapter release. Numbers are given away by `add_candidate`."""
        with self._reads() as session:
            return repository.highest_release(session, line) + 1

    def add_candidate(
        self, manifest: AdapterManifest, blobs: Mapping[str, bytes], *, base_sha: str, snapshot: str | None = None,
        parent: int | None = None, metrics: Mapping[str, Any] | None = None, proposal: bytes = b"",
    ) -> int:  # fmt: skip
        """Keep a trained adapter release; returns its id. The same manifest twice is one candidate.

        Args:
            blobs: bytes by SHA-256, every blob of the manifest.
            proposal: the adapter role's next metadata, signed by the trainer.

        Raises:
            BadEntry: a blob is missing or wrong, the base is another, or the release number is taken.
        """
        self._keep_blobs(manifest, blobs, base_sha)
        sha = manifest.digest()
        with self._begin() as session:
            if session.get(BaseRow, base_sha) is None:
                raise BadEntry(f"there is no base {base_sha[:12]}; add the base first")
            present = repository.candidate(session, manifest.line, manifest.release)
            if present is not None:
                if present.manifest_sha == sha:
                    return present.id
                following = repository.highest_release(session, manifest.line) + 1
                raise BadEntry(f"release {manifest.release} of line {manifest.line} is taken; the next is {following}")
            row = Candidate(
                line=manifest.line, release=manifest.release, model_version=manifest.model_version, state="trained",
                manifest=manifest.model_dump(mode="json", exclude_none=True), manifest_sha=sha, base_sha=base_sha,
                proposal=proposal, snapshot=snapshot, parent=parent, metrics=dict(metrics or {}),
                created_at=self._now(),
            )  # fmt: skip
            session.add(row)
            session.flush()
            return row.id

    def _keep_blobs(self, manifest: AdapterManifest, blobs: Mapping[str, bytes], base_sha: str) -> None:
        if manifest.base != base_sha:
            raise BadEntry(f"the manifest is made for base {manifest.base[:12]}, not {base_sha[:12]}")
        for blob in manifest.blobs():
            data = blobs.get(blob.sha256)
            if data is None or len(data) != blob.length or sha256_hex(data) != blob.sha256:
                raise BadEntry(f"blob {blob.sha256[:12]} is missing or has another digest or length")
            self._blobs.add(data)

    def candidate(self, id: int) -> Candidate:
        """The candidate's row, detached.

        Raises:
            Problem: 404.
        """
        with self._reads() as session:
            row = session.get(Candidate, id)
            if row is None:
                raise not_found("candidate", str(id))
            return row

    def by_release(self, line: str, release: int) -> Candidate:
        """The adapter release of that number, detached.

        Raises:
            Problem: 404.
        """
        with self._reads() as session:
            row = repository.candidate(session, line, release)
            if row is None:
                raise not_found("adapter release", f"{line} {release}")
            return row

    def manifest(self, id: int) -> AdapterManifest:
        """The candidate's manifest."""
        return manifest_of(self.candidate(id))

    def of_line(self, line: str, *, limit: int = 200) -> list[CandidateView]:
        """The line's candidates, newest first."""
        with self._reads() as session:
            return [view(row) for row in repository.candidates(session, line, limit)]

    def incumbent(self, line: str) -> Candidate | None:
        """The adapter release the line's newest release that was not aborted runs, detached."""
        with self._reads() as session:
            return repository.incumbent(session, line)

    def decide(self, id: int, accepted: bool, report: Mapping[str, Any], *, actor: str = "gate") -> Candidate:
        """Write the gate's word down, once.

        Raises:
            Problem: 404; 409 when the candidate is decided already.
        """
        to: State = "accepted" if accepted else "refused"
        with self._begin() as session:
            row = self._moved(session, id, to)
            row.report, row.decided_at = dict(report), self._now()
            audit.record(
                session, at=self._now(), actor=actor, action=f"candidate.{to}", subject=f"{row.line} r{row.release}",
                reason=str(report.get("summary", "")) or None, evidence={"candidate": id, "sha256": row.manifest_sha},
            )  # fmt: skip
            return row

    def publish(self, session: Session, line: str, release: int) -> Candidate:
        """In the caller's transaction: an accepted candidate is published; a published one stays so.

        Raises:
            Problem: 404; 409 for a candidate the gate did not accept, or a revoked one.
        """
        row = repository.candidate(session, line, release)
        if row is None:
            raise not_found("adapter release", f"{line} {release}")
        return row if row.state == "published" else self._moved(session, row.id, "published")

    def revoke(self, session: Session, line: str, release: int) -> Candidate:
        """In the caller's transaction: a published candidate will never be released again.

        Raises:
            Problem: 404; 409 when it is not published.
        """
        row = repository.candidate(session, line, release)
        if row is None:
            raise not_found("adapter release", f"{line} {release}")
        return self._moved(session, row.id, "revoked")

    @staticmethod
    def _moved(session: Session, id: int, to: State) -> Candidate:
        row = session.get(Candidate, id, with_for_update=True)
        if row is None:
            raise not_found("candidate", str(id))
        try:
            row.state = move(row.state, to)
        except WrongMove as fault:
            raise Problem(
                409, "wrong_state", f"Adapter release {row.release} of line {row.line!r}: {fault}."
            ) from fault
        return row
