"""Fixtures of the cloud's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.kit import Plant


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    """A fresh database with ingest on it."""
    made = Plant(tmp_path)
    yield made
    made.engine.dispose()
