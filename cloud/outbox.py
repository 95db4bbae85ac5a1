"""Messages that leave after the commit that caused them.

`send` is called inside the transaction; `flush` runs in the ingest process, which owns the broker link. A message is
deleted once the link took it: a crash in between sends it twice, and every message is idempotent.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud.db.session import Begin
from cloud.db.tables import Outbox
from models.link import Link

BATCH = 64


def send(session: Session, *, topic: str, payload: bytes, at: int, retain: bool = False) -> None:
    """Queue a message; it goes out only if this transaction commits."""
    session.add(Outbox(topic=topic, payload=payload, retain=retain, created_at=at))


def flush(begin: Begin, link: Link, *, timeout: float = 1.0) -> int:
    """Hand waiting messages to the link in order and return how many went; stops at the first that does not go."""
    with begin() as session:
        waiting = list(session.scalars(select(Outbox).order_by(Outbox.id).limit(BATCH)))
        sent = 0
        for message in waiting:
            if not link.publish(message.topic, message.payload, retain=message.retain, timeout=timeout):
                break
            session.delete(message)
            sent += 1
    return sent
