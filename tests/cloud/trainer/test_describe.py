"""Words for the review page: who gets them, who may not, that they are made once, and that training goes first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cloud import bootstrap
from cloud.db.tables import BaseRow, Description, Edge, Job, Label, Sample, Task
from cloud.first_release import publish_bundle
from cloud.jobs.worker import Worker
from cloud.lines.schemas import LineSpec, NewClass
from cloud.registry.schemas import StoredBase
from cloud.trainer.describe import DESCRIBE, WAITING, _place
from cloud.trainer.service import TrainerService, build_trainer
from models.contracts.base import sha256_hex
from models.nn.build import Source, build
from models.nn.checkpoint import save_checkpoint, write_language_head
from models.runtime.bundle import LANGUAGE_HEAD, TOKENIZER
from ota.keys import ceremony
from simulators.objects import MemoryObjects
from tests.cloud.trainer.test_service import LINE, Clock, png, settings, starting_bundle
from tests.models.nn.checkpoint_folder import config
from tests.models.nn.speaking import SENTENCE, write_speaking
from tests.models.nn.toy import CLASSES, NOW

PROMPT = ": <image> :"


@dataclass
class Site:
    services: bootstrap.Services
    clock: Clock
    trainer: TrainerService
    calls: list[str] = field(default_factory=list)

    def worker(self, train: Callable[..., dict[str, Any]] | None = None) -> Worker:
        return Worker(
            jobs=self.services.jobs, handlers={"train": train or (lambda *_: {})}, owner="w",
            ahead=self.trainer.ahead, rest_s=0.0, idle={DESCRIBE: self.trainer.describer.handle},
        )  # fmt: skip

    def ask(self) -> None:
        list(self.trainer.ahead())

    def sample(self, number: int, **fields: Any) -> str:
        """A stored sample that waits for review, as ingest leaves it."""
        sid, image = f"01900000-0000-7000-8000-{number:012d}", fields.pop("image", None) or png(1, defect=True)
        sha = sha256_hex(image)
        self.services.objects.put_once(f"samples/{sha[:2]}/{sha}", image, sha256=sha, content_type="image/png")
        row = {
            "predicted": "scratch", "verdict": "reject", "release": 3,
            "meta": {"decision": {"scores": {"good": 0.1, "scratch": 0.9}}, "evidence": [0.0] * 15 + [1.0],
                     "evidence_grid": [4, 4]},
        } | fields  # fmt: skip
        with self.services.begin() as session:
            session.add(
                Sample(
                    sid=sid, edge="edge-1", epoch="0" * 16, seq=number + 1, line=LINE, camera="cam-1", serial="P",
                    captured_at=self.clock.us, clock_ok=True, received_at=self.clock.us, stored_at=self.clock.us,
                    sha256=sha, size=len(image), type="image/png", stratum="hard", pi_select=0.5, meta_sha="0" * 64,
                    **row,
                )
            )  # fmt: skip
            session.flush()
            session.add(Task(sid=sid, line=LINE, queue="value", pi_label=0.5, value=1 - number / 100, created_at=0))
        return sid

    def said(self) -> list[Description]:
        with self.services.reads() as session:
            return list(session.scalars(select(Description).order_by(Description.sid, Description.language)))

    def jobs(self) -> list[Job]:
        with self.services.reads() as session:
            return list(session.scalars(select(Job).where(Job.kind == DESCRIBE).order_by(Job.id)))


def opened(folder: Path, *, random: bool = False, language: bool = True, **options: Any) -> Site:
    """A cloud with one line whose base says `SENTENCE`, or random weights with the same files beside them."""
    write_speaking(folder / "published")
    source = None if random else Source(folder / "published", PROMPT)
    made = build(config(), source=source, family="toy", version=1, seed=0, now=NOW)
    files = {}
    for name, data in made.base.files.items():
        files[name] = folder / name
        files[name].write_bytes(data)
    words = {TOKENIZER: folder / "published" / TOKENIZER}
    if made.head is not None:
        write_language_head(made.head, folder / LANGUAGE_HEAD, dtype=made.head.dtype)
        words[LANGUAGE_HEAD] = folder / LANGUAGE_HEAD
    clock = Clock()
    services = bootstrap.build(settings(folder, **options), now=clock, objects=MemoryObjects())
    services.lines.create(
        LineSpec(name=LINE, title="Plates", classes=[NewClass(name=c.name, defect=c.defect) for c in CLASSES])
    )
    with services.begin() as session:
        session.add(Edge(name="edge-1", line=LINE, enrolled_at=clock.us))
    services.registry.add_base(
        made.base.manifest, files, save_checkpoint(made.model), language=words if language else None
    )
    return Site(services, clock, build_trainer(services, signer=None))  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = opened(tmp_path)
    yield made
    made.services.engine.dispose()


def test_a_part_that_waits_for_review_gets_its_sentence_once(site: Site) -> None:
    sid = site.sample(1)
    site.ask()
    worker = site.worker()
    assert worker.run_idle()
    english, chinese = site.said()
    assert (english.sid, english.language, english.text, english.dropped) == (sid, "en", SENTENCE, None)
    assert (english.release, english.created_at) == (3, site.clock.us)
    with site.services.reads() as session:
        assert english.base_sha == session.scalars(select(BaseRow.sha256)).one()
    assert (chinese.language, chinese.text, chinese.dropped) == ("zh", None, "other_language")
    (job,) = site.jobs()
    assert (job.state, job.result["en"]["tokens"]) == ("done", len(SENTENCE.split()))
    site.ask()
    assert not worker.run_idle()
    assert len(site.jobs()) == 1


def test_a_job_that_is_run_again_makes_nothing_twice(site: Site) -> None:
    from cloud.jobs.schemas import LeasedJob
    from cloud.jobs.worker import Beat

    sid = site.sample(1)
    job = LeasedJob(1, DESCRIBE, f"describe/{LINE}/{sid}", {"line": LINE, "sid": sid}, 1, "w", 0)
    first = site.trainer.describer.handle(job, Beat(threading.Event()))
    before = [(row.language, row.text) for row in site.said()]
    assert set(first) == {"en", "zh"}
    assert site.trainer.describer.handle(job, Beat(threading.Event())) == {}
    assert [(row.language, row.text) for row in site.said()] == before


def test_words_against_the_decision_are_kept_from_the_page(site: Site) -> None:
    sid = site.sample(1, predicted="good", verdict="pass")
    site.ask()
    site.worker().run_idle()
    english = site.said()[0]
    assert (english.text, english.dropped) == (None, "other_class")
    assert site.services.labels.sample(sid).descriptions == []
    assert site.services.labels.queue(LINE).tasks[0].descriptions == []


def test_the_review_page_is_answered_with_it(site: Site) -> None:
    sid = site.sample(1)
    site.ask()
    site.worker().run_idle()
    (task,) = site.services.labels.queue(LINE).tasks
    (one,) = task.descriptions
    assert (one.text, one.language, one.release) == (SENTENCE, "en", 3)
    assert site.services.labels.sample(sid).descriptions == [one]


def test_the_parts_that_come_next_are_asked_for_a_few_at_a_time(site: Site) -> None:
    sids = [site.sample(number) for number in range(WAITING + 3)]
    site.ask()
    site.ask()
    assert [job.payload["sid"] for job in site.jobs()] == sids[:WAITING]
    site.worker().run_idle()
    site.ask()
    assert [job.payload["sid"] for job in site.jobs()] == sids[: WAITING + 1]


def test_who_gets_no_sentence(site: Site) -> None:
    """An unjudged part is not asked for; what became settled meanwhile is left; each says why."""
    site.sample(1, predicted=None, verdict="unsure")
    settled, unreadable, foreign = site.sample(2), site.sample(3, image=b"no image"), site.sample(4, predicted="rust")
    site.ask()
    assert [job.payload["sid"] for job in site.jobs()] == [settled, unreadable, foreign]
    site.services.labels.label(settled, "good", "anna")
    worker = site.worker()
    while worker.run_idle():
        pass
    assert site.said() == []
    reasons = [job.result["skipped"] for job in site.jobs()]
    assert "does not wait" in reasons[0]
    assert "cannot be read" in reasons[1]
    assert "no class 'rust'" in reasons[2]


def test_training_goes_first(site: Site) -> None:
    """A waiting description starts after every other job; one under way makes room at its next token."""
    site.sample(1)
    site.ask()
    order: list[str] = []
    describe = site.trainer.describer.handle

    def train(job: Any, _beat: Any) -> dict[str, Any]:
        order.append(job.key)
        return {}

    def overtaken(job: Any, beat: Any) -> dict[str, Any]:
        order.append(job.key)
        with site.services.begin() as session:
            site.services.jobs.enqueue(session, "train", f"train/{LINE}/{len(order)}", {"line": LINE})
        return describe(job, beat)

    worker = Worker(jobs=site.services.jobs, handlers={"train": train}, owner="w", idle={DESCRIBE: overtaken})
    assert worker.run_idle()
    (job,) = site.jobs()
    assert (job.state, job.attempts, site.said()) == ("ready", 0, [])
    assert worker.run_one()
    assert order == [job.key, f"train/{LINE}/1"]
    assert site.worker().run_idle()
    assert site.said()[0].text == SENTENCE


def test_the_loop_of_a_worker_comes_to_it_by_itself(site: Site) -> None:
    site.sample(1)
    stop = threading.Event()

    class Stops:
        """Ends the loop once the sentence is there; never waits."""

        def is_set(self) -> bool:
            return stop.is_set()

        def wait(self, _seconds: float) -> bool:
            if site.said():
                stop.set()
            return stop.is_set()

    worker = site.worker()
    worker.run(Stops())  # type: ignore[arg-type]
    assert site.said()[0].text == SENTENCE
    assert worker.faults == 0


def test_a_store_that_is_away_delays_and_loses_nothing(site: Site) -> None:
    site.sample(1)
    site.ask()
    site.services.objects.down = True
    worker = site.worker()
    worker.run_idle()
    (job,) = site.jobs()
    assert (job.state, job.attempts) == ("ready", 0)
    site.services.objects.down = False
    site.clock.us += 10_000_000
    worker.run_idle()
    assert site.said()[0].text == SENTENCE


@pytest.mark.parametrize("lacks", [{"random": True}, {"language": False}, {"describe": False}])
def test_nothing_happens_on_a_base_without_a_language_or_when_it_is_off(tmp_path: Path, lacks: dict[str, Any]) -> None:
    site = opened(tmp_path, **lacks)
    site.sample(1)
    site.ask()
    assert site.jobs() == []
    site.services.engine.dispose()


def test_a_job_for_a_base_that_cannot_speak_says_so(tmp_path: Path) -> None:
    site = opened(tmp_path, random=True)
    sid = site.sample(1)
    with site.services.begin() as session:
        site.services.jobs.enqueue(session, DESCRIBE, f"describe/{LINE}/{sid}", {"line": LINE, "sid": sid})
    site.worker().run_idle()
    assert "random weights" in site.jobs()[0].result["skipped"]
    site.services.engine.dispose()


def test_a_damaged_tokenizer_fails_one_job_and_no_more(site: Site, tmp_path: Path) -> None:
    site.sample(1)
    site.sample(2)
    with site.services.begin() as session:
        row = session.scalars(select(BaseRow)).one()
        row.tokenizer = site.services.blobs.add(b"{}")
    site.ask()
    worker = site.worker()
    worker.run_idle()
    worker.run_idle()
    first, second = site.jobs()
    assert (first.state, second.state) == ("failed", "done")
    assert "is no tokenizer" in first.error
    assert "is no tokenizer" in second.result["skipped"]
    site.sample(3)
    site.ask()
    assert len(site.jobs()) == 2


def test_only_the_chosen_languages_cost_a_generation(tmp_path: Path) -> None:
    site = opened(tmp_path, describe_languages=["zh"])
    site.sample(1)
    site.ask()
    site.worker().run_idle()
    assert [row.language for row in site.said()] == ["zh"]
    site.services.engine.dispose()


def test_a_place_belongs_to_the_class_it_speaks_for() -> None:
    """The box's map is of the most probable class; the called one may be another."""
    meta = {"decision": {"scores": {"good": 0.6, "scratch": 0.4}}, "evidence": [0.0] * 15 + [1.0],
            "evidence_grid": [4, 4]}  # fmt: skip
    found = _place(meta, "good")
    assert found is not None
    assert found.words("en") == "at the lower right"
    assert _place(meta, "scratch") is None
    assert _place({**meta, "evidence_grid": [3, 3]}, "good") is None
    assert _place({}, "good") is None


def test_publishing_takes_the_language_along(tmp_path: Path) -> None:
    """From a model's folder into the registry; boxes are given none of it."""
    write_speaking(tmp_path / "published")
    keys = ceremony(tmp_path / "keys", lines=[LINE], passphrase="a long enough passphrase")
    services = bootstrap.build(settings(tmp_path), objects=MemoryObjects())
    services.repository.create(keys, [LINE])
    services.lines.create(
        LineSpec(name=LINE, title="Plates", classes=[NewClass(name=c.name, defect=c.defect) for c in CLASSES])
    )
    (tmp_path / "bundle").mkdir()
    tokenizer = tmp_path / "published" / TOKENIZER
    without = starting_bundle(tmp_path / "bundle")
    first = publish_bundle(services, without, keys)
    assert services.registry.current_base(LINE).tokenizer is None  # type: ignore[union-attr]
    assert publish_bundle(services, replace(without, language={TOKENIZER: tokenizer}), keys) == first
    stored: StoredBase | None = services.registry.current_base(LINE)
    assert stored is not None
    assert stored.tokenizer is not None
    assert services.blobs.read(stored.tokenizer) == tokenizer.read_bytes()
    assert stored.language_head is None
    assert TOKENIZER not in {file.name for file in stored.manifest.files}
    services.engine.dispose()


def test_a_label_needs_no_sentence(site: Site) -> None:
    sid = site.sample(1)
    site.services.labels.label(sid, "scratch", "anna")
    site.ask()
    assert site.jobs() == []
    with site.services.reads() as session:
        assert session.scalars(select(Label)).one().sid == sid
