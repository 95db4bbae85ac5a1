"""The handler of "describe" jobs: a sentence about a part that waits for review, in the words of its base's language
model. The box has decided; nothing here changes or counts anything.

Jobs are made for the parts a person will look at next, a few at a time, and only for a line whose base came with a
tokenizer and published weights; on any other base nothing happens. They are the worker's idle work: one that runs is
put back as soon as training is due, asked between two tokens. A sentence is made once per sample and language; where
none may be shown the row says why. What a sentence may say is decided in `models.runtime.grounding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
import torch
from sqlalchemy import literal, select
from sqlalchemy.orm import Session
from tokenizers import Tokenizer

from cloud.bootstrap import Services
from cloud.db.tables import Description, Job, Line, Sample, Task
from cloud.jobs.schemas import LeasedJob, NotYet, PermanentFailure
from cloud.jobs.worker import Beat
from cloud.objects import ObjectMissing, StoreUnavailable
from cloud.registry.schemas import StoredBase, manifest_of
from cloud.trainer.settings import TrainerOptions
from models.nn.checkpoint import BadCheckpoint, read_language_head
from models.nn.generate import CannotGenerate, Limits, Speaker, refuse_without_language
from models.nn.model import DeepSeekEdge
from models.nn.prompt import BadPrompt, open_tokenizer
from models.runtime.explain import Language, Place, find_place
from models.runtime.grounding import Facts
from models.runtime.image import Pixels, Unreadable, decode_image
from models.runtime.preprocess import Roi, WrongSize

DESCRIBE = "describe"
WAITING = 8
"""Jobs of a line that wait at most: what is asked later knows better what a person will look at next."""
RETRY_S = 5.0
log = structlog.get_logger(__name__)


class NothingToDescribe(Exception):
    """This sample gets no sentence, and that is no fault; the text says why."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a base speaks with beside its model; no head where that is the embedding table."""

    tokenizer: Tokenizer
    head: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample as it will be described. `done` are the languages that have their sentence."""

    sid: str
    line: str
    sha256: str
    release: int
    facts: Facts
    done: frozenset[str]


class Describer:
    """See the module. `model_of` gives a base's model, which the trainer has loaded already."""

    def __init__(
        self, services: Services, *, options: TrainerOptions, model_of: Callable[[StoredBase], DeepSeekEdge],
        threads: int,
    ) -> None:  # fmt: skip
        self._services, self._options, self._model_of, self._threads = services, options, model_of, threads
        self._words: dict[str, Words] = {}
        self._mute: dict[tuple[str, str], str] = {}

    def ahead(self) -> Iterator[None]:
        """Ask for sentences about the parts that will be looked at next; a line between two yields."""
        if not self._options.describe:
            return
        for line in self._services.lines.all():
            base = self._services.registry.current_base(line.name)
            if base is not None and self._why_mute(base, line.name) is None and self._ask(line.name):
                yield

    def _ask(self, line: str) -> int:
        """Number of jobs made."""
        with self._services.reads() as session:
            room = WAITING - len(self._services.jobs.in_flight(session, line, (DESCRIBE,)))
            sids = _next_samples(session, line, room) if room > 0 else []
        for sid in sids:
            with self._services.begin() as session:
                self._services.jobs.enqueue(session, DESCRIBE, f"{DESCRIBE}/{line}/{sid}", {"line": line, "sid": sid})
        return len(sids)

    def handle(self, job: LeasedJob, beat: Beat) -> dict[str, Any]:
        """Run one job; the payload is ``{"line": name, "sid": sample}``.

        Raises:
            PermanentFailure: the base's tokenizer or language head cannot be used, or cannot write the classes' names.
            NotYet: the object store is away.
            Overtaken, Stopping, LeaseLost: from `beat`; what is finished stays.
        """
        line, sid = str(job.payload["line"]), str(job.payload["sid"])
        try:
            return self._describe(line, sid, beat)
        except NothingToDescribe as reason:
            return {"skipped": str(reason)}
        except StoreUnavailable as fault:
            raise NotYet(str(fault), delay_s=RETRY_S) from fault

    def _describe(self, line: str, sid: str, beat: Beat) -> dict[str, Any]:
        base = self._services.registry.current_base(line)
        if base is None:
            raise NothingToDescribe("the line has no base any more")
        if why := self._why_mute(base, line):
            raise NothingToDescribe(why)
        with self._services.reads() as session:
            shown = _shown(session, sid)
        pixels = self._pixels(shown)
        torch.set_num_threads(self._threads)
        result: dict[str, Any] = {}
        for language in self._options.describe_languages:
            if language not in shown.done:
                result[language] = self._word(base, shown, pixels, language=language, beat=beat)
        return result

    def _pixels(self, shown: Shown) -> Pixels:
        try:
            return decode_image(self._services.images.read(shown.sha256))
        except (Unreadable, ObjectMissing) as fault:
            raise NothingToDescribe(f"the image cannot be read: {fault}") from fault

    def _word(
        self, base: StoredBase, shown: Shown, pixels: Pixels, *, language: Language, beat: Beat
    ) -> dict[str, Any]:
        """Generate one sentence, check it and keep it."""
        limits = Limits(tokens=self._options.describe_tokens, seconds=self._options.describe_s)
        try:
            judged, raw = self._speaker(base).describe(
                pixels, shown.facts, language=language, roi=self._roi(shown.line, base), limits=limits, go_on=beat.check
            )
        except WrongSize as fault:
            raise NothingToDescribe(str(fault)) from fault
        except (CannotGenerate, BadPrompt, BadCheckpoint) as fault:  # the next sample would end the same way
            self._mute[base.sha, shown.line] = str(fault)
            raise PermanentFailure(f"base {base.sha[:12]} cannot word parts of {shown.line}: {fault}") from fault
        sid = shown.sid
        with self._services.begin() as session:
            if session.get(Description, (sid, language)) is None:
                session.add(
                    Description(
                        sid=sid, language=language, text=judged.text, dropped=judged.dropped, base_sha=base.sha,
                        release=shown.release, created_at=self._services.now(),
                    )
                )  # fmt: skip
        seconds = round(raw.seconds, 2)
        log.info("described", sid=sid, language=language, tokens=len(raw.ids), seconds=seconds, dropped=judged.dropped)
        return {"dropped": judged.dropped, "tokens": len(raw.ids), "seconds": seconds}

    def _roi(self, line: str, base: StoredBase) -> Roi | None:
        incumbent = self._services.registry.incumbent(line)
        return None if incumbent is None or incumbent.base_sha != base.sha else manifest_of(incumbent).roi

    def _why_mute(self, base: StoredBase, line: str) -> str | None:
        """Why this base says nothing about the line, or None. Cheap: nothing is loaded for it. What turned out unusable
        is not tried again by this process."""
        if base.tokenizer is None:
            return "the base came without a tokenizer"
        try:
            refuse_without_language(base.manifest)
        except CannotGenerate as why:
            return str(why)
        return self._mute.get((base.sha, line))

    def _speaker(self, base: StoredBase) -> Speaker:
        """The base's language model. Its words are kept, its weights are the trainer's to keep or to drop."""
        model, blobs = self._model_of(base), self._services.blobs
        if base.sha not in self._words:
            tokenizer = open_tokenizer(blobs.path(base.tokenizer or ""))
            own = base.language_head
            head = None if own is None else read_language_head(blobs.path(own), model)
            self._words = {base.sha: Words(tokenizer, head)}
        words = self._words[base.sha]
        head = read_language_head(None, model) if words.head is None else words.head
        return Speaker(model, base.manifest, head=head, tokenizer=words.tokenizer)


def _next_samples(session: Session, line: str, limit: int) -> list[str]:
    """Parts that wait for review in the queue's order, judged ones, for which nothing was asked yet."""
    asked = select(Job.id).where(Job.key == literal(f"{DESCRIBE}/{line}/") + Task.sid).exists()
    query = (
        select(Task.sid)
        .join(Sample, Sample.sid == Task.sid)
        .where(Task.line == line, Task.state == "open", Sample.predicted.is_not(None), ~asked)
        .order_by(Task.queue, Task.value.desc(), Task.sid)
    )
    return list(session.scalars(query.limit(limit)))


def _shown(session: Session, sid: str) -> Shown:
    """
    Raises:
        NothingToDescribe: the sample has its label, was not judged, or was judged by classes the line lacks.
    """
    sample, task = session.get(Sample, sid), session.get(Task, sid)
    if sample is None or task is None or task.state != "open":
        raise NothingToDescribe("it does not wait for review any more")
    defects = {str(one["name"]): bool(one["defect"]) for one in session.get_one(Line, sample.line).classes}
    if sample.predicted not in defects:
        raise NothingToDescribe(f"the line has no class {sample.predicted!r}")
    facts = Facts(sample.verdict, sample.predicted, defects, _place(sample.meta, sample.predicted))  # type: ignore[arg-type]
    done = session.scalars(select(Description.language).where(Description.sid == sid))
    return Shown(sid, sample.line, sample.sha256, sample.release, facts, frozenset(done))


def _place(meta: Mapping[str, Any], called: str) -> Place | None:
    """Where the box found its reasons. Its map speaks for the most probable class, which is not always the called."""
    evidence, grid = meta.get("evidence"), meta.get("evidence_grid")
    scores: dict[str, float] = meta.get("decision", {}).get("scores", {})
    if not evidence or not grid or len(evidence) != grid[0] * grid[1] or not scores:
        return None
    if max(scores, key=lambda name: scores[name]) != called:
        return None
    return find_place(np.array(evidence, dtype=np.float32).reshape(grid))
