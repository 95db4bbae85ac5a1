"""The talk about records: send, wait for the receipt, send again. Losses, aggregates, flags and reports alike.

They are small and few and are never held back by credit: an account must reach the cloud even when data may not.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Protocol

from edge_agent.spool.sample import Record
from edge_agent.uplink.pace import Backoff, Silence
from edge_agent.uplink.settings import UplinkSettings
from models.contracts.uplink import RecordAck


class RecordStore(Protocol):
    """The part of `Spool` this needs."""

    def records_due(self, limit: int, *, exclude: set[str]) -> list[Record]: ...
    def record_acked(self, key: str) -> bool: ...
    def record_refused(self, key: str, code: str) -> bool: ...


class Records:
    """See the module."""

    def __init__(self, *, store: RecordStore, settings: UplinkSettings, silence: Silence, rng: random.Random) -> None:
        self._store, self._settings, self._silence, self._rng = store, settings, silence, rng
        self._sent: dict[str, float] = {}
        self._pauses: dict[str, tuple[float, Backoff]] = {}
        self._waiting: list[Record] = []
        self._poll_at = 0.0
        self.counts: Counter[str] = Counter()

    def restart(self, t: float) -> None:
        """A fresh connection or ingest: everything unanswered is sent again."""
        self._sent.clear()
        self._pauses.clear()
        self._waiting.clear()
        self._poll_at = t

    def on_answer(self, answer: RecordAck) -> None:
        if answer.result == "stored":
            known = self._store.record_acked(answer.id)
        else:
            known = self._store.record_refused(answer.id, answer.code or "unnamed")
        self.counts[f"records_{answer.result}" if known else "stray_answers"] += 1
        self._sent.pop(answer.id, None)
        self._pauses.pop(answer.id, None)
        self._waiting = [record for record in self._waiting if record.id != answer.id]

    def tick(self, t: float) -> None:
        """Let time pass: what got no receipt pauses, then is due again."""
        for key in [key for key, at in self._sent.items() if t - at >= self._settings.ack_timeout_s]:
            self._silence.unanswered(self._sent.pop(key), t)
            backoff = self._pauses[key][1] if key in self._pauses else self._backoff()
            self._pauses[key] = (t + backoff.fail(), backoff)
        free = self._settings.record_window - len(self._sent) - len(self._waiting)
        if t < self._poll_at or free <= 0:
            return
        resting = {key for key, (until, _) in self._pauses.items() if until > t}
        known = resting | set(self._sent) | {record.id for record in self._waiting}
        fresh = self._store.records_due(free, exclude=known)
        self._waiting += fresh
        if not fresh:
            self._poll_at = t + self._settings.poll_s

    def next(self, t: float) -> Record | None:
        """The next record to publish."""
        if t < self._silence.gate or (self._silence.broken and self._sent):
            return None
        return self._waiting[0] if self._waiting else None

    def sent(self, record: Record, t: float) -> None:
        """The link took it."""
        self._waiting = [other for other in self._waiting if other.id != record.id]
        self._sent[record.id] = t

    def _backoff(self) -> Backoff:
        return Backoff(base=self._settings.retry_base_s, cap=self._settings.retry_cap_s, rng=self._rng)
