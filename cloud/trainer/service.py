"""The handler of "train" jobs: freeze labels, learn, sign as the trainer, register the candidate, call the gate.
And of "propose" jobs: sign the adapter role as it is for another week, and ask the gate to do the same.

A job that is run again after a crash finds its candidate by the job's key in the lineage and only calls the gate. A
line that cannot be taught anything yet is no fault: the job ends with the reason in its result.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError
from securesystemslib.signer import Signer

from cloud.bootstrap import Services
from cloud.clock import from_us
from cloud.db.tables import Candidate
from cloud.jobs.hourly import GATE, RENEW
from cloud.jobs.schemas import LeasedJob, NotYet, PermanentFailure
from cloud.jobs.worker import Beat
from cloud.labels.schemas import CurrentLabel
from cloud.lines.schemas import FOR_EVER, LineView, Purpose
from cloud.objects import StoreUnavailable
from cloud.registry.loading import ModelLoader
from cloud.registry.schemas import StoredBase, manifest_of
from cloud.settings import BadSettings
from cloud.trainer.describe import Describer
from cloud.trainer.lesson import Gathered, Item, TokenShelf, View, gather
from cloud.trainer.settings import TrainerOptions
from cloud.trainer.snapshot import Frozen, SnapshotBook, in_order
from models.contracts.model_manifest import AdapterManifest, Lineage
from models.nn.checkpoint import BadCheckpoint, load_checkpoint, read_language_head
from models.nn.device import NoDevice, choose_device
from models.nn.examples import Examples
from models.nn.model import DeepSeekEdge
from models.nn.prompt import BadPrompt, class_rows, open_tokenizer
from models.nn.release import Costs, Identity, Lesson, Made, make_release
from models.nn.starting import VERSION
from models.runtime.adapter import read_adapter
from models.runtime.base import Base, SessionLimits
from models.runtime.golden import read_golden

RETRY_S = 5.0
T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a line's training stands on: its base, loaded twice (to run and to train), and the incumbent."""

    line: LineView
    stored: StoredBase
    base: Base
    model: DeepSeekEdge
    incumbent: Candidate | None


class NothingToLearn(Exception):
    """The labels cannot teach a release; the text says what is missing."""


class TrainerService:
    """See the module."""

    def __init__(self, services: Services, *, signer: Signer, options: TrainerOptions, threads: int) -> None:
        self._services, self._signer, self._options, self._threads = services, signer, options, threads
        self._book = SnapshotBook(
            begin=services.begin, now=services.now, labels=services.labels, objects=services.objects
        )
        self._shelf = TokenShelf(services.settings.cloud.state_dir / "tokens")
        limits = SessionLimits(threads=threads)
        self._loader = ModelLoader(registry=services.registry, blobs=services.blobs, limits=limits)
        self._checkpoints: dict[str, DeepSeekEdge] = {}
        self.describer = Describer(services, options=options, model_of=self.model, threads=threads)
        self._seen: set[tuple[str, str]] = set()

    def ahead(self) -> Iterator[None]:
        """Read with the tower what the next lesson needs, an image at a time: references, those of a coming product
        too, and labelled samples. An hour with a new product then trains no later than others."""
        for line in self._services.lines.all():
            ground = self._ground(line.name)
            if ground is None:
                continue
            for view, item in self._coming(ground):
                key = (view.folder(), item.sha256)
                if key in self._seen:
                    continue
                self._seen.add(key)  # before it is read: what cannot be read is tried again by the job, not here
                try:
                    self._shelf.get(ground.base, view, item.sha256, item.read)
                except StoreUnavailable:
                    self._seen.discard(key)
                    raise
                yield
        yield from self.describer.ahead()

    def _coming(self, ground: Ground) -> Iterator[tuple[View, Item]]:
        wide, plain = self._view(ground, flips=self._options.flips), self._view(ground, flips=False)
        for as_of in (self._services.now(), FOR_EVER):
            memory, gate = self._reference_items(ground, as_of)
            yield from ((wide, item) for item in memory)
            yield from ((plain, item) for item in gate)
        for part in self._label_items(ground, in_order(self._services.labels.current(ground.line.name))):
            yield from ((wide, item) for item in part)

    def handle(self, job: LeasedJob, beat: Beat) -> dict[str, Any]:
        """Run one job; the payload is ``{"line": name}``.

        Raises:
            PermanentFailure: the line has no base or no gate images.
            NotYet: the object store is away.
        """
        line = str(job.payload["line"])
        made = self._made_before(line, job.key)
        if made is not None:
            self._call_gate(made)
            return {"candidate": made.id, "release": made.release, "resumed": True}
        try:
            return self._train(line, job, beat)
        except NothingToLearn as reason:
            log.info("nothing_to_learn", line=line, reason=str(reason))
            return {"refused": str(reason)}
        except StoreUnavailable as fault:
            raise NotYet(str(fault), delay_s=RETRY_S) from fault

    def propose(self, job: LeasedJob, _beat: Beat) -> dict[str, Any]:
        """Handler of "propose" jobs; the payload is ``{"line": name}``.

        Raises:
            ota.errors.OtaError: the repository cannot be read.
        """
        line = str(job.payload["line"])
        proposal = base64.b64encode(self._services.repository.propose_renewal(line, self._signer)).decode()
        key = f"{RENEW}/{line}/{job.key.rsplit('/', 1)[1]}"
        with self._services.begin() as session:
            self._services.jobs.enqueue(session, RENEW, key, {"line": line, "proposal": proposal})
        return {"renewal": key}

    def _made_before(self, line: str, key: str) -> Candidate | None:
        newest = self._services.registry.next_release(line) - 1
        if newest < 1:
            return None
        candidate = self._services.registry.by_release(line, newest)
        return candidate if manifest_of(candidate).lineage.training_run == key else None

    def _ground(self, line: str) -> Ground | None:
        registry = self._services.registry
        stored = registry.current_base(line)
        if stored is None:
            return None
        sha, model = stored.sha, self.model(stored)
        incumbent = registry.incumbent(line)
        if incumbent is not None and incumbent.base_sha != sha:
            incumbent = None
        return Ground(self._services.lines.get(line), stored, self._loader.base(sha), model, incumbent)

    def model(self, stored: StoredBase) -> DeepSeekEdge:
        """The base's checkpoint, loaded; one is kept."""
        if stored.sha not in self._checkpoints:
            self._checkpoints = {stored.sha: load_checkpoint(self._services.blobs.path(stored.checkpoint))}
        return self._checkpoints[stored.sha]

    def _train(self, line: str, job: LeasedJob, beat: Beat) -> dict[str, Any]:
        ground = self._ground(line)
        if ground is None:
            raise PermanentFailure(f"line {line} has no base: train one with edgeloop models train, then publish it")
        frozen = self._book.freeze(line)
        memory, validation = self._references(ground, beat.check)
        if not len(validation.examples):
            raise PermanentFailure(
                f"line {line} has no gate images: import some with edgeloop cloud line import --purpose gate"
            )
        new, older = self._labelled(ground, frozen, beat)
        replay = [part for part in (memory.examples, older.examples) if len(part)]
        lesson = self._lesson(ground, new.examples, replay, validation)
        release = self._services.registry.next_release(line)
        seed = self._options.seed * 100_003 + release
        made = make_release(
            ground.base, ground.model, lesson, self._identity(ground, release, job.key, frozen, seed),
            settings=self._options.release(self._threads), seed=seed, progress=lambda x: beat.progress(0.1 + 0.85 * x),
        )  # fmt: skip
        skipped = memory.unreadable + new.unreadable + older.unreadable
        return self._register(ground, made, frozen, {**made.metrics, "unreadable": float(skipped)})

    def _lesson(self, ground: Ground, new: Examples, replay: list[Examples], validation: Gathered) -> Lesson:
        if not len(new):
            raise NothingToLearn("there is no readable labelled image yet")
        if not replay:
            raise NothingToLearn(
                "there is nothing to replay: import memory images with edgeloop cloud line import --purpose memory, "
                f"or label more than {self._options.recent} samples"
            )
        taught = {int(label) for part in (new, *replay) for label in part.labels}
        classes = ground.line.class_specs
        sides = {classes[i].defect for i in taught}
        if len(sides) < 2:
            missing = "defective" if sides == {False} else "good"
            raise NothingToLearn(f"every labelled and replayed image is of one kind: label some {missing} parts")
        incumbent = ground.incumbent
        return Lesson(
            new=new,
            memory=Examples.join(replay),
            validation=validation.examples,
            domains=validation.domains,
            golden=read_golden(self._services.blobs.read(ground.stored.manifest.file("golden").sha256)),
            classes=classes,
            costs=Costs(escape=ground.line.escape_cost, overkill=ground.line.overkill_cost),
            start=None if incumbent is None else self._adapter_of(manifest_of(incumbent), ground),
            words=self._words(ground, [spec.name for spec in classes], taught),
        )

    def _words(self, ground: Ground, names: list[str], taught: set[int]) -> Any:
        """Rows of the classes' own words, while some class has no label; None on a base without words."""
        stored = ground.stored
        if stored.tokenizer is None or len(taught) == len(names):
            return None
        try:
            tokenizer = open_tokenizer(self._services.blobs.path(stored.tokenizer))
            own = None if stored.language_head is None else self._services.blobs.path(stored.language_head)
            return class_rows(tokenizer, read_language_head(own, ground.model), names)
        except (BadPrompt, BadCheckpoint) as fault:  # the labelled classes learn as well without
            log.warning("no_words_for_unlabelled_classes", line=ground.line.name, reason=str(fault))
            return None

    def _adapter_of(self, manifest: AdapterManifest, ground: Ground) -> dict[str, Any] | None:
        if manifest.adapter is None:
            return None
        return read_adapter(self._services.blobs.read(manifest.adapter.blob.sha256), ground.stored.manifest.lora)

    def _view(self, ground: Ground, *, flips: bool) -> View:
        roi = None if ground.incumbent is None else manifest_of(ground.incumbent).roi
        return View(ground.stored.sha, flips, roi)

    def _references(self, ground: Ground, beat: Any) -> tuple[Gathered, Gathered]:
        memory, gate = self._reference_items(ground, self._services.now())
        wide, plain = self._view(ground, flips=self._options.flips), self._view(ground, flips=False)
        return (
            gather(self._shelf, ground.base, wide, memory, beat=beat),
            gather(self._shelf, ground.base, plain, gate, beat=beat),
        )

    def _reference_items(self, ground: Ground, as_of: int) -> tuple[list[Item], list[Item]]:
        """Memory images, as many as are replayed, and all gate images."""
        names = [spec.name for spec in ground.line.class_specs]

        def items(purpose: Purpose) -> list[Item]:
            images, read = self._services.lines.references(ground.line.name, purpose, as_of), self._services.blobs.read
            return [Item(image.sha256, names.index(image.label), 1.0, read, image.domain) for image in images]

        return _spread(items("memory"), self._options.memory), items("gate")

    def _labelled(self, ground: Ground, frozen: Frozen, beat: Beat) -> tuple[Gathered, Gathered]:
        """Newest labels, and the older ones that are replayed."""
        view = self._view(ground, flips=self._options.flips)
        recent, older = (
            gather(self._shelf, ground.base, view, part, beat=beat.check)
            for part in self._label_items(ground, frozen.labels)
        )
        return recent, older

    def _label_items(self, ground: Ground, labels: Sequence[CurrentLabel]) -> tuple[list[Item], list[Item]]:
        """The newest labels, and of the older ones as many as are replayed; `labels` are oldest first."""
        names = [spec.name for spec in ground.line.class_specs]

        def item(label: CurrentLabel) -> Item:
            weight = math.sqrt(min(1 / label.pi_upload, self._options.max_weight))
            return Item(label.sha256, names.index(label.name), weight, self._services.images.read)

        judging = {image.sha256 for image in self._services.lines.references(ground.line.name, "gate")}
        known = [item(one) for one in labels if one.name in names and one.sha256 not in judging]
        return known[-self._options.recent :], _spread(known[: -self._options.recent], self._options.memory)

    def _identity(self, ground: Ground, release: int, run: str, frozen: Frozen, seed: int) -> Identity:
        now = from_us(self._services.now())
        incumbent = ground.incumbent
        lineage = Lineage(
            training_run=run, parent_release=None if incumbent is None else incumbent.release,
            label_snapshot=frozen.sha256, labels=len(frozen.labels), code_version=VERSION, seed=seed, trained_at=now,
        )  # fmt: skip
        kept = (
            {}
            if incumbent is None
            else {"roi": manifest_of(incumbent).roi, "exposure": manifest_of(incumbent).exposure}
        )
        return Identity(
            base_sha=ground.stored.sha, line=ground.line.name, release=release, lineage=lineage, created_at=now, **kept
        )

    def _register(self, ground: Ground, made: Made, frozen: Frozen, metrics: dict[str, float]) -> dict[str, Any]:
        manifest, blobs = made.packed.manifest, made.packed.blobs
        proposal = self._services.repository.propose_adapter(manifest, blobs, self._signer)
        registry = self._services.registry
        id = registry.add_candidate(
            manifest, blobs, base_sha=ground.stored.sha, snapshot=frozen.sha256,
            parent=None if ground.incumbent is None else ground.incumbent.release, metrics=metrics, proposal=proposal,
        )  # fmt: skip
        self._call_gate(registry.candidate(id))
        return {"candidate": id, "release": manifest.release, "labels": len(frozen.labels), "metrics": metrics}

    def _call_gate(self, candidate: Candidate) -> None:
        with self._services.begin() as session:
            key = f"{GATE}/{candidate.line}/{candidate.release}"
            self._services.jobs.enqueue(session, GATE, key, {"candidate": candidate.id})


def _spread(items: list[T], limit: int) -> list[T]:
    """At most `limit` items, evenly over the list."""
    if len(items) <= limit:
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def build_trainer(services: Services, *, signer: Signer) -> TrainerService:
    """The trainer of this process, with its describer; lowers its priority.

    Raises:
        BadSettings: an unknown or impossible key in ``[training.options]``, or a device this machine lacks.
    """
    try:
        options = TrainerOptions.model_validate(services.settings.training.options)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_context=False, include_input=False)[0]
        raise BadSettings(f"training.options.{'.'.join(map(str, first['loc']))}: {first['msg']}") from fault
    try:
        choose_device(options.device)
    except NoDevice as fault:
        raise BadSettings(f"training.options.device: {fault}") from fault
    os.nice(options.nice)
    return TrainerService(services, signer=signer, options=options, threads=services.settings.worker.threads)
