"""The audit log: who did what to which thing, why, and on what evidence; append-only and hash-chained.

A row is written in the same transaction as the change it tells of. `verify` recomputes the chain.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud.db.tables import Audit
from models.contracts.base import canonical, sha256_hex

GENESIS = "0" * 64


def _digest(row: Audit) -> str:
    columns = (row.at, row.actor, row.action, row.subject, row.reason, row.evidence)
    return sha256_hex(row.previous.encode() + canonical(columns))


def record(
    session: Session,
    *,
    at: int,
    actor: str,
    action: str,
    subject: str,
    reason: str | None = None,
    evidence: dict[str, Any] | None = None,
) -> Audit:
    """Append one entry. Writers are serialised by the database (BEGIN IMMEDIATE, or the unique digest)."""
    last = session.scalars(select(Audit.sha256).order_by(Audit.id.desc()).limit(1)).first()
    row = Audit(
        at=at,
        actor=actor,
        action=action,
        subject=subject,
        reason=reason,
        evidence=evidence or {},
        previous=last or GENESIS,
    )
    row.sha256 = _digest(row)
    session.add(row)
    session.flush()
    return row


def verify(session: Session) -> int | None:
    """The id of the first entry that breaks the chain, or None when all of it holds."""
    previous = GENESIS
    for row in session.scalars(select(Audit).order_by(Audit.id)):
        if row.previous != previous or row.sha256 != _digest(row):
            return row.id
        previous = row.sha256
    return None
