"""Freezing labels: what a release learned from is an immutable object, named by digest, before training starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Snapshot
from cloud.labels.schemas import CurrentLabel
from cloud.labels.service import LabelService
from cloud.objects import ObjectStore
from models.contracts.base import canonical, sha256_hex


@dataclass(frozen=True, slots=True)
class Frozen:
    """A snapshot: its digest, the moment it holds for (microseconds) and the labels, oldest first."""

    sha256: str
    as_of: int
    labels: list[CurrentLabel]


def snapshot_key(sha256: str) -> str:
    """The object's key."""
    return f"snapshots/{sha256}.json"


class SnapshotBook:
    """See the module."""

    def __init__(self, *, begin: Begin, now: NowUs, labels: LabelService, objects: ObjectStore) -> None:
        self._begin, self._now, self._labels, self._objects = begin, now, labels, objects

    def freeze(self, line: str) -> Frozen:
        """The labels of `line` that count now, stored before the row that names them.

        Raises:
            StoreUnavailable: the object store cannot be asked; nothing was written.
        """
        as_of = self._now()
        labels = in_order(self._labels.current(line, as_of))
        rows = [
            {"sid": one.sid, "label": one.label_id, "name": one.name, "sha256": one.sha256, "pi": one.pi_upload}
            for one in labels
        ]
        data = canonical({"v": 1, "line": line, "as_of": as_of, "labels": rows})
        sha = sha256_hex(data)
        self._objects.put_once(snapshot_key(sha), data, sha256=sha, content_type="application/json")
        with self._begin() as session:
            if session.get(Snapshot, sha) is None:
                session.add(Snapshot(sha256=sha, line=line, labels=len(rows), as_of=as_of, created_at=self._now()))
        return Frozen(sha, as_of, labels)


def in_order(labels: Iterable[CurrentLabel]) -> list[CurrentLabel]:
    """Oldest first, the same on every machine."""
    return sorted(labels, key=lambda label: (label.labelled_at, label.sid))
