"""Counters that must outlive the process, in one small JSON file, written atomically every few seconds.

It holds what is cheap to lose a few seconds of: the hour's sums and what the hour's budget has spent. A file that
cannot be read is set aside with a loud log line and the agent starts with empty counters: inspection never waits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog

from models.contracts.base import Malformed, canonical, parse_json
from models.disk import REAL_FS, Fs, write_atomic

MAX_BYTES = 16 << 20
_log = structlog.get_logger("checkpoint")


class Checkpoint:
    """One file of named parts."""

    def __init__(self, path: Path, *, fs: Fs = REAL_FS) -> None:
        self._path, self._fs = path, fs
        self._written: bytes | None = None

    def load(self) -> dict[str, Any]:
        """The parts last saved; empty when there is no file or it is damaged."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            parts = parse_json(data, limit=MAX_BYTES)
        except Malformed as fault:
            parts = str(fault)
        if not isinstance(parts, dict):
            self._set_aside(str(parts)[:200])
            return {}
        self._written = data
        return parts

    def save(self, parts: dict[str, Any]) -> None:
        """Write the parts if they changed.

        Raises:
            OSError: nothing was replaced.
        """
        data = canonical(parts)
        if data != self._written:
            write_atomic(self._path, data, fs=self._fs)
            self._written = data

    def _set_aside(self, why: str) -> None:
        aside = self._path.with_suffix(".damaged")
        self._path.replace(aside)
        _log.error("counters lost: the checkpoint is damaged", moved_to=str(aside), why=why)
