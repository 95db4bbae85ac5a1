"""The talk about samples: offer -> want -> chunks -> stored, with every message lost, doubled or late at will.

    OFFER -> OFFERED -> SENDING -> SENT      ends on stored, have, no
                 \\-> PUTTING ----/           later: set aside until its time; silence: OFFER again

An offer is the one question that is always safe to repeat: its answer says what the cloud still lacks, so every doubt
leads back to OFFER. No I/O but the spool, whose calls are local and durable.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from edge_agent.spool.sample import Sample
from edge_agent.uplink.pace import Backoff, Silence, TokenBucket
from edge_agent.uplink.settings import UplinkSettings
from models.contracts.chunk import HEADER_BYTES, MIN_CHUNK_BYTES, Chunk, chunk_count, encode_chunk
from models.contracts.topics import UP_LIMIT
from models.contracts.uplink import (
    AckItem,
    IngestLimits,
    Offer,
    OfferItem,
    Priority,
    Put,
    Result,
    bitmap_missing,
)

_URGENCY = {prio: place for place, prio in enumerate((Priority.ALERT, Priority.FLAGGED, Priority.HARD, Priority.DEBUG))}
_URGENCY[Priority.AUDIT] = _URGENCY[Priority.HARD]  # their shares were settled when the spool handed them out
_OFFER_ROOM = UP_LIMIT["offer"] - 256


class SampleStore(Protocol):
    """The part of `Spool` this needs."""

    def next_batch(self, limit: int, *, weights: dict[Priority, int], exclude: set[str]) -> list[Sample]: ...
    def image(self, sid: str) -> bytes | None: ...
    def release(self, sid: str) -> None: ...
    def acked(self, sid: str, epoch: str) -> bool: ...
    def refused(self, sid: str, epoch: str, code: str) -> bool: ...


class Stage(StrEnum):
    OFFER = "offer"
    OFFERED = "offered"
    SENDING = "sending"
    SENT = "sent"
    PUTTING = "putting"


@dataclass(slots=True)
class Talk:
    """One sample under way. `since` is when its stage began; `unasked` that its data went along with the offer."""

    sample: Sample
    stage: Stage = Stage.OFFER
    since: float = 0.0
    not_before: float = 0.0
    missing: list[int] = field(default_factory=list)
    chunk: int = 0
    image: bytes | None = None
    put: Put | None = None
    unasked: bool = False
    went: set[tuple[int, int]] = field(default_factory=set)

    def move(self, stage: Stage, t: float) -> None:
        self.stage, self.since = stage, t
        if stage not in (Stage.SENDING, Stage.PUTTING):
            self.image = None


class Samples:
    """See the module."""

    def __init__(
        self, *, edge: str, store: SampleStore, settings: UplinkSettings, silence: Silence, rng: random.Random
    ) -> None:
        self._edge, self._store, self._settings, self._silence, self._rng = edge, store, settings, silence, rng
        self._talks: dict[str, Talk] = {}
        self._resting: dict[str, float] = {}
        self._bucket = TokenBucket(settings.bytes_per_s, settings.burst_bytes)
        self._starving = Backoff(base=settings.retry_base_s, cap=60.0, rng=rng)
        self._starved_until: float | None = None
        self._refill_at = 0.0
        self._limits = IngestLimits()
        self._max_chunk: int | None = None
        self._last_chunk: tuple[str, int] | None = None
        self._suspect: tuple[str, int] | None = None
        self.credit = 0
        self.counts: Counter[str] = Counter()

    # -- what happens ----------------------------------------------------------------------------------------------

    def restart(self, limits: IngestLimits, t: float) -> None:
        """A fresh connection or a fresh ingest: ask again about everything, hold no credit."""
        self._limits, self.credit, self._starved_until = limits, 0, None
        self._refill_at = t
        for talk in self._talks.values():
            if talk.stage is not Stage.PUTTING:
                self._again(talk, t)

    def connection_lost(self) -> None:
        """Twice in a row on the same chunk: something on the way cannot take packets of this size."""
        last, self._last_chunk = self._last_chunk, None
        if last is None:
            return
        if last == self._suspect:
            now = self._max_chunk or self._limits.chunk_bytes
            self._max_chunk = max(MIN_CHUNK_BYTES, now // 2)
            self.counts["chunk_halved"] += 1
            self._suspect = None
        else:
            self._suspect = last

    def on_credit(self, credit: int) -> None:
        self.credit = credit
        if credit > 0:
            self._starving.reset()
            self._starved_until = None

    def on_answer(self, item: AckItem, epoch: str, t: float) -> None:
        """One answer of the cloud for a sample of this box in `epoch`."""
        talk = self._talks.get(item.sid)
        if talk is not None and talk.sample.epoch != epoch:
            self.counts["wrong_epoch"] += 1
            return
        if item.result in (Result.STORED, Result.HAVE, Result.NO):
            self._end(item, epoch)
        elif talk is None:
            self.counts["stray_answers"] += 1
        elif item.result is Result.LATER:
            wait = self._rng.uniform(5.0, 30.0) if item.retry_after_s is None else float(item.retry_after_s)
            self._resting[item.sid] = t + wait
            self._drop(item.sid)
            self.counts["later"] += 1
        else:
            self._wanted(talk, item, t)

    def put_done(self, sid: str, *, ok: bool, t: float) -> None:
        """The PUT ended. Whatever it returned is no receipt: offer again, at once or after a pause."""
        talk = self._talks.get(sid)
        if talk is not None and talk.stage is Stage.PUTTING:
            self.counts["puts" if ok else "puts_failed"] += 1
            self._again(talk, t, pause=0.0 if ok else self._settings.ack_timeout_s)

    def forget_all(self) -> None:
        """Give every sample back to the spool."""
        for sid in list(self._talks):
            self._drop(sid)

    # -- what to say -----------------------------------------------------------------------------------------------

    def tick(self, t: float) -> None:
        """Let time pass: unanswered talks, rests that are over, starvation, and room for new samples."""
        for talk in self._talks.values():
            waited = talk.stage in (Stage.OFFERED, Stage.SENT) and t - talk.since >= self._settings.ack_timeout_s
            if waited:
                self._silence.unanswered(talk.since, t)
                self.counts["timeouts"] += 1
                self._again(talk, t, pause=self._rng.uniform(0.0, self._settings.retry_base_s))
        for sid in [sid for sid, until in self._resting.items() if until <= t]:
            del self._resting[sid]
        if self._starved_until is not None and t >= self._starved_until:
            self._starved_until = None
            for talk in self._talks.values():
                if talk.stage is Stage.SENDING:
                    self._again(talk, t)
        self._refill(t)

    def offer(self, t: float) -> tuple[bytes, list[str]] | None:
        """The next offer's payload and the sids in it."""
        if t < self._silence.gate:
            return None
        if self._silence.broken and any(talk.stage is Stage.OFFERED for talk in self._talks.values()):
            return None
        ready = [x for x in self._talks.values() if x.stage is Stage.OFFER and x.not_before <= t]
        if not ready:
            return None
        epoch, room, items = ready[0].sample.epoch, _OFFER_ROOM, list[OfferItem]()
        for talk in ready:
            item = self._item(talk.sample)
            room -= len(item.encode()) + 1
            if talk.sample.epoch != epoch or len(items) == self._limits.offer_items or (room < 0 and items):
                break
            items.append(item)
        payload = Offer(edge=self._edge, epoch=epoch, items=items).encode()
        return payload, [item.sid for item in items]

    def offered(self, sids: list[str], t: float) -> None:
        """The link took the offer. Small samples follow unasked as far as the cloud allows."""
        for sid in sids:
            if (talk := self._talks.get(sid)) is None:
                continue
            talk.move(Stage.OFFERED, t)
            unasked = sum(x.sample.size for x in self._talks.values() if x.unasked) + talk.sample.size
            talk.unasked = unasked <= self._limits.unsolicited_bytes and talk.sample.size <= self._limits.chunk_bytes
            if talk.unasked:
                talk.missing, talk.chunk = [0], talk.sample.size
                talk.move(Stage.SENDING, t)

    def data(self, t: float) -> tuple[bytes, str, int] | None:
        """The next chunk: payload, sid, index. None without credit, budget, or anything wanted."""
        if self._silence.broken:
            return None
        while (talk := self._most_urgent(Stage.SENDING)) is not None:
            index = talk.missing[0]
            size = min(talk.chunk, talk.sample.size - index * talk.chunk)
            if not talk.unasked and size > self.credit:
                self._starve(t)
                return None
            if not self._bucket.ready(t, size):
                return None
            if talk.image is None:
                talk.image = self._store.image(talk.sample.sid)
            if talk.image is None:
                # Spoiled on disk; the spool has declared it.
                self._drop(talk.sample.sid)
                continue
            part = talk.image[index * talk.chunk : index * talk.chunk + size]
            count = chunk_count(talk.sample.size, talk.chunk)
            chunk = Chunk(sid=talk.sample.sid, index=index, count=count, size=talk.chunk, data=part)
            return encode_chunk(chunk), talk.sample.sid, index
        return None

    def data_sent(self, sid: str, index: int, payload: bytes, t: float) -> None:
        """The link took the chunk."""
        talk, size = self._talks.get(sid), len(payload) - HEADER_BYTES
        self._bucket.spend(size)
        self._last_chunk = (sid, index)
        self.counts["sent_bytes"] += size
        if talk is None:
            return
        if not talk.unasked:
            self.credit -= size
        if (talk.chunk, index) in talk.went:
            self.counts["resent_bytes"] += size
        talk.went.add((talk.chunk, index))
        if talk.missing and talk.missing[0] == index:
            talk.missing.pop(0)
        if not talk.missing:
            talk.move(Stage.SENT, t)

    def put(self, t: float) -> tuple[Put, str, bytes] | None:
        """The next presigned upload; it is under way from here on."""
        if any(x.stage is Stage.PUTTING and x.put is None for x in self._talks.values()):
            return None
        talk = self._most_urgent(Stage.PUTTING)
        if talk is None or talk.put is None or not self._bucket.ready(t, talk.sample.size):
            return None
        image = self._store.image(talk.sample.sid)
        if image is None:
            self._drop(talk.sample.sid)
            return None
        order, talk.put = talk.put, None
        self._bucket.spend(len(image))
        self.counts["sent_bytes"] += len(image)
        return order, talk.sample.sid, image

    # -- inside ----------------------------------------------------------------------------------------------------

    def _end(self, item: AckItem, epoch: str) -> None:
        # Answers count even when the talk is gone: a late receipt is still a receipt. The spool checks the epoch.
        if item.result is Result.NO:
            known = self._store.refused(item.sid, epoch, item.code or "unnamed")
        else:
            known = self._store.acked(item.sid, epoch)
        self.counts[item.result.value if known else "stray_answers"] += 1
        self._resting.pop(item.sid, None)
        # A receipt the spool could not write down leaves the sample pending: it is offered again and answered `have`.
        self._drop(item.sid)

    def _wanted(self, talk: Talk, item: AckItem, t: float) -> None:
        if talk.stage in (Stage.SENDING, Stage.PUTTING) or (talk.stage is Stage.SENT and talk.unasked):
            # An answer to an earlier question; what it asks for is on its way.
            if talk.stage is Stage.SENT:
                talk.unasked = False
            return
        if item.put is not None:
            talk.put = item.put
            talk.move(Stage.PUTTING, t)
            return
        size = item.chunk or self._limits.chunk_bytes
        try:
            missing = bitmap_missing(item.chunks, chunk_count(talk.sample.size, size))
        except ValueError:
            self.counts["bad_answers"] += 1
            return
        talk.missing, talk.chunk, talk.unasked = missing, size, False
        talk.move(Stage.SENDING if missing else Stage.SENT, t)

    def _refill(self, t: float) -> None:
        free = self._settings.window - len(self._talks)
        if t < self._refill_at or free <= 0 or len(self._resting) >= 4 * self._settings.window:
            return
        fresh = self._store.next_batch(free, weights=dict(self._settings.weights), exclude=set(self._resting))
        for sample in fresh:
            self._talks[sample.sid] = Talk(sample)
        if not fresh:
            self._refill_at = t + self._settings.poll_s

    def _again(self, talk: Talk, t: float, *, pause: float = 0.0) -> None:
        talk.unasked, talk.put, talk.not_before = False, None, t + pause
        talk.move(Stage.OFFER, t)

    def _drop(self, sid: str) -> None:
        if self._talks.pop(sid, None) is not None:
            self._store.release(sid)

    def _starve(self, t: float) -> None:
        if self._starved_until is None:
            self._starved_until = t + self._settings.retry_base_s / 2 + self._starving.fail()

    def _most_urgent(self, stage: Stage) -> Talk | None:
        talks = [x for x in self._talks.values() if x.stage is stage]
        return min(talks, key=lambda x: (_URGENCY[x.sample.prio], x.image is None), default=None)

    def _item(self, sample: Sample) -> OfferItem:
        return OfferItem(
            sid=sample.sid,
            seq=sample.seq,
            sha256=sample.sha256,
            size=sample.size,
            type=sample.type,
            meta_sha=sample.meta_sha,
            meta=sample.meta,
            prio=sample.prio,
            pi_survive=sample.pi_survive,
            captured_at=sample.captured_at,
            clock_ok=sample.clock_ok,
            max_chunk=self._max_chunk,
        )
