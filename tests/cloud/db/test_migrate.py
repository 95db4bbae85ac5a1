"""Migrations make exactly the tables the program uses, once, whoever starts first."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from cloud.db.migrate import NewerDatabase, _config, current, head, upgrade
from cloud.db.session import open_engine, reads
from cloud.db.tables import BaseRow, Table


def test_the_migrations_equal_the_tables(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    assert current(engine) is None
    assert upgrade(engine) == head() == current(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    assert upgrade(engine) == head()
    engine.dispose()


def test_rows_of_an_older_program_stay(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO bases (sha256, family, version, manifest, checkpoint, created_at) "
            "VALUES ('a', 'nano', 1, '{}', 'c', 5)"
        )
    assert current(engine) == "0001"
    assert upgrade(engine) == head() != "0001"
    with reads(engine)() as session:
        row = session.get_one(BaseRow, "a")
        assert (row.checkpoint, row.tokenizer, row.language_head) == ("c", None, None)
    engine.dispose()


def test_processes_that_start_together_migrate_once(tmp_path: Path) -> None:
    url, faults = f"sqlite:///{tmp_path / 'a.db'}", []

    def start() -> None:
        engine = open_engine(url)
        try:
            upgrade(engine)
        except Exception as fault:  # noqa: BLE001 - carried to the test's thread
            faults.append(fault)
        engine.dispose()

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert faults == []


def test_a_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NewerDatabase, match="update edgeloop"):
        upgrade(engine)
    assert current(engine) == "9999"
    engine.dispose()
