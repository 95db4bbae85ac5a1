"""Spools under these uplinks live in memory where the machine has such a folder: what is tested is order, not speed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="spool-", dir=MEMORY) as folder:
        yield Path(folder)
