"""Engines and sessions. A session is one transaction: `begin` commits on success and rolls back on any exception.

SQLite: WAL, synchronous FULL (a commit survives power loss), foreign keys on, and BEGIN IMMEDIATE for writers, so
two of them queue at the start and never fail half-way with "database is locked".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker

BUSY_TIMEOUT_MS = 15_000

Begin = Callable[[], AbstractContextManager[Session]]
"""Opens one transaction. Services take this, never an engine."""


def open_engine(url: str) -> Engine:
    """An engine for ``sqlite:///path`` or ``postgresql+psycopg://...``; connects on first use."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy sends BEGIN itself: the driver would send a deferred one
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        reading = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def transactions(engine: Engine) -> Begin:
    """Read-write transactions on `engine`."""
    factory = sessionmaker(engine, expire_on_commit=False)
    return factory.begin


def reads(engine: Engine) -> Begin:
    """Read-only transactions: a consistent snapshot that never waits for a writer. Nothing is committed."""
    factory = sessionmaker(engine.execution_options(read_only=True), expire_on_commit=False)

    @contextmanager
    def begin() -> Iterator[Session]:
        with factory() as session:
            yield session

    return begin
