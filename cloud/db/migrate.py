"""Bringing the tables to this program's version. Migrations are part of the package and run at every start.

Several processes may start at once: on SQLite the transaction is BEGIN IMMEDIATE, on PostgreSQL an advisory lock is
taken first, so one migrates and the others find the work done.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

LOCK = 0x_ED6E_1007
"""The advisory lock's number on PostgreSQL; any constant will do."""


class NewerDatabase(RuntimeError):
    """The tables were made by a newer program. Update this program, or restore the backup made before the update."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "cloud.db:migrations")
    return config


def head() -> str:
    """The newest revision this program knows."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def current(engine: Engine) -> str | None:
    """The revision of the tables, or None for an empty database."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: Engine) -> str:
    """Run every migration that is missing, in one transaction, and return the revision.

    Raises:
        NewerDatabase: the tables are newer than this program; nothing was changed.
    """
    config = _config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK})
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision is not None and revision not in known:
            raise NewerDatabase(
                f"the database is at revision {revision}, which this program does not know: "
                "update edgeloop, or restore the backup made before the database was updated"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head()
