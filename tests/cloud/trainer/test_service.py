"""From labels to a signed release on real parts: trainer, gate and rollout on a toy DeepSeek-Edge, two rounds of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load
from sqlalchemy import select

from cloud import bootstrap
from cloud.clock import from_us
from cloud.db.tables import BaseRow, Candidate, Edge, Job, Label, Sample, Snapshot
from cloud.first_release import publish_bundle
from cloud.jobs.worker import Worker
from cloud.lines.schemas import LineSpec, NewClass, ReferenceItem
from cloud.objects import StoreUnavailable
from cloud.registry.schemas import manifest_of
from cloud.settings import BadSettings, CloudSettings
from cloud.trainer.service import TrainerService, build_trainer
from models.contracts.base import sha256_hex
from models.contracts.model_manifest import Lineage
from models.contracts.tuf_layout import adapter_role
from models.nn.checkpoint import save_checkpoint, write_language_head
from models.nn.heads import fit_head
from models.nn.release import Costs, Identity, ReleaseSettings, assemble, embed_onnx, pack
from models.runtime.bundle import Bundle
from models.runtime.golden import read_golden
from ota.keys import KeyFolder, ceremony
from simulators.objects import MemoryObjects
from tests.models.nn.checkpoint_folder import WORDS, write_transformers
from tests.models.nn.toy import CLASSES, NOW, examples, picture, toy

START = 1_772_366_400_000_000
LINE = "plates"


@dataclass
class Clock:
    us: int = START

    def __call__(self) -> int:
        return self.us


def png(seed: int, *, defect: bool, level: int = 120) -> bytes:
    return bytes(cv2.imencode(".png", picture(seed, defect=defect, level=level))[1])


def starting_bundle(folder: Path) -> Bundle:
    """The toy's release 1: a head on the bare base, good on bright plates."""
    made, learned = toy(), examples(toy(), range(40))
    weight, bias = fit_head(
        torch.from_numpy(embed_onnx(made.base, learned.tokens[:, 0], {})), torch.from_numpy(learned.labels),
        torch.ones(40), classes=2, decay=0.01,
    )  # fmt: skip
    parts = assemble(
        made.base, CLASSES, lora=None, feeds={}, head=(weight.numpy(), bias.numpy()),
        validation=examples(made, range(40, 80)), seen=learned, costs=Costs(), settings=ReleaseSettings(),
        exposure=_any_exposure(), seed=0,
    )  # fmt: skip
    golden = read_golden(made.built.files["golden.safetensors"])
    lineage = Lineage(training_run="starting", code_version="test", seed=0, trained_at=NOW)
    identity = Identity(made.built.manifest.digest(), LINE, 1, lineage, NOW)
    packed = pack(made.base, parts, identity, golden=golden, rank=made.model.config.lora_rank)
    files = {}
    for name, data in made.built.files.items():
        files[name] = folder / name
        files[name].write_bytes(data)
    checkpoint = save_checkpoint(made.model)
    return Bundle(made.built.manifest, files, checkpoint, packed.manifest, packed.blobs, {"parity": 0.001})


def _any_exposure() -> Any:
    from models.contracts.model_manifest import ExposureLimits

    return ExposureLimits()


@dataclass
class Site:
    services: bootstrap.Services
    clock: Clock
    keys: KeyFolder
    stored: int = 0

    def trainer(self) -> TrainerService:
        return build_trainer(self.services, signer=self.keys.signer("trainer"))

    def work(self, kind: str) -> bool:
        make = bootstrap.train_worker if kind == "train" else bootstrap.gate_worker
        return make(self.services).run_one(threading.Event())

    def ask(self) -> None:
        assert self.services.training.request(LINE, actor="test") is not None

    def release(self) -> None:
        """What the cloud process does at its tick."""
        rollout = self.services.rollout or bootstrap.add_rollout(self.services)
        rollout.advance()

    def label(
        self, seeds: range, *, level: int, wrong: frozenset[int] = frozenset(), data: bytes | None = None
    ) -> None:
        """Stored samples with labels, as ingest and review leave them."""
        with self.services.begin() as session:
            for seed in seeds:
                defect = bool(seed % 2)
                image = data or png(seed, defect=defect, level=level)
                sha = sha256_hex(image)
                self.services.objects.put_once(f"samples/{sha[:2]}/{sha}", image, sha256=sha, content_type="image/png")
                session.add(self._sample(seed, sha, len(image)))
                session.flush()
                called = defect ^ (seed in wrong)
                session.add(
                    Label(sid=_sid(seed), line=LINE, name="scratch" if called else "good", author="anna",
                          method="single", queue="estimate", labelled_at=self.clock.us)
                )  # fmt: skip

    def _sample(self, seed: int, sha: str, size: int) -> Sample:
        self.stored += 1
        return Sample(
            sid=_sid(seed), edge="edge-1", epoch="0" * 16, seq=self.stored, line=LINE, camera="cam-1",
            serial=f"P{seed}", captured_at=self.clock.us, clock_ok=True, received_at=self.clock.us,
            stored_at=self.clock.us, sha256=sha, size=size, type="image/png", verdict="unsure", stratum="hard",
            pi_select=0.5, pi_survive=1.0, release=1, meta={}, meta_sha="0" * 64,
        )  # fmt: skip

    def candidates(self) -> list[Candidate]:
        with self.services.reads() as session:
            return list(session.scalars(select(Candidate).order_by(Candidate.release)))

    def last_job(self, kind: str) -> Job:
        with self.services.reads() as session:
            return session.scalars(select(Job).where(Job.kind == kind).order_by(Job.id.desc())).first()


def _sid(seed: int) -> str:
    return f"01900000-0000-7000-8000-{seed:012d}"


def settings(folder: Path, **options: Any) -> CloudSettings:
    fast = {"min_steps": 25, "max_steps": 25, "rate": 3e-3, "batch_new": 8, "batch_memory": 8, "nice": 0}
    return CloudSettings(
        cloud={"state_dir": folder / "state"}, release={"repository": folder / "repo", "keys": folder / "keys/online"},
        objects={"endpoint": "127.0.0.1:1", "access_key": "a", "secret_key": "b"},
        training={"options": fast | options}, worker={"threads": 1},
        gate={"calibration": 0.3, "min_images": 20, "bootstrap": 200},
    )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    clock = Clock()
    keys = ceremony(tmp_path / "keys", lines=[LINE], passphrase="a long enough passphrase")
    services = bootstrap.build(settings(tmp_path), now=clock, objects=MemoryObjects())
    services.repository.create(keys, [LINE])
    services.lines.create(
        LineSpec(name=LINE, title="Plates", classes=[NewClass(name=c.name, defect=c.defect) for c in CLASSES])
    )
    made = Site(services, clock, keys)
    with services.begin() as session:
        session.add(Edge(name="edge-1", line=LINE, enrolled_at=clock.us))
    references(made, range(300, 340), "memory", level=120)
    references(made, range(400, 430), "gate", level=120)
    references(made, range(500, 530), "gate", level=70, domain="dark")
    publish_bundle(services, starting_bundle(tmp_path), keys)
    assert made.work("gate")
    made.release()
    yield made
    services.engine.dispose()


def references(site: Site, seeds: range, purpose: Any, *, level: int, domain: str = "bright") -> None:
    items = [
        ReferenceItem(png(s, defect=bool(s % 2), level=level), CLASSES[s % 2].name, domain, f"{domain}-{s // 10}")
        for s in seeds
    ]
    site.services.lines.add_references(LINE, purpose, items)


def test_two_rounds_from_labels_to_signed_releases(site: Site) -> None:
    assert site.services.repository.current_channel(LINE, "stable").adapter.path.endswith("r000001.manifest.json")
    for number, seeds in ((2, range(0, 24)), (3, range(24, 48))):
        site.clock.us += 60_000_000
        site.label(seeds, level=70)
        site.ask()
        assert site.work("train")
        candidate = site.candidates()[-1]
        assert (candidate.release, candidate.state) == (number, "trained"), site.last_job("train").error
        assert candidate.snapshot is not None
        assert candidate.metrics["labels"] == (24 if number == 2 else 48)
        assert site.work("gate")
        candidate = site.candidates()[-1]
        assert candidate.state in ("accepted", "published", "refused")
        assert candidate.report["summary"]
        site.clock.us += 60_000_000
        site.release()
    first, second = site.candidates()[1:]
    assert first.state == "published", first.report["summary"]
    assert second.parent == first.release
    assert second.snapshot != first.snapshot


def test_a_job_run_twice_makes_one_candidate(site: Site) -> None:
    site.label(range(24), level=70)
    site.ask()
    site.work("train")
    job = site.last_job("train")
    from cloud.jobs.schemas import LeasedJob
    from cloud.jobs.worker import Beat

    again = LeasedJob(job.id, job.kind, job.key, job.payload, 2, "other", site.clock.us)
    result = site.trainer().handle(again, Beat(threading.Event()))
    assert result["resumed"] is True
    assert len(site.candidates()) == 2


def test_an_adapter_role_past_half_its_life_is_signed_again(site: Site) -> None:
    role, services = adapter_role(LINE), site.services
    site.clock.us += 4 * 86_400_000_000
    (asked,) = services.renewal.tick()
    assert site.work("train")
    assert services.jobs.by_key(asked).state == "done"
    assert site.work("gate")
    assert site.last_job("renew").state == "done", site.last_job("renew").error
    assert services.repository.expiries()[role] == from_us(site.clock.us) + timedelta(days=7)
    assert services.renewal.tick() == []


def test_labels_that_cannot_teach_are_refused_with_the_reason(site: Site) -> None:
    site.ask()
    assert site.work("train")
    assert "labelled image" in site.last_job("train").result["refused"]
    assert len(site.candidates()) == 1


def test_an_unreadable_sample_is_left_out_and_counted(site: Site) -> None:
    site.label(range(24), level=70)
    site.label(range(900, 901), level=70, data=b"not an image")
    site.ask()
    site.work("train")
    metrics = site.candidates()[-1].metrics
    assert (metrics["labels"], metrics["unreadable"]) == (24, 1)


def test_a_line_without_gate_images_says_what_to_import(tmp_path: Path, site: Site) -> None:
    with site.services.begin() as session:
        from cloud.db.tables import Reference

        for row in session.scalars(select(Reference).where(Reference.purpose == "gate")):
            session.delete(row)
    site.label(range(24), level=70)
    site.ask()
    site.work("train")
    job = site.last_job("train")
    assert job.state == "failed"
    assert "--purpose gate" in job.error


def row_of(site: Site, name: str) -> np.ndarray:
    """A class's row in the newest release's head."""
    head = manifest_of(site.candidates()[-1]).head
    weight = load(site.services.blobs.read(head.blob.sha256))["weight"]
    return weight[[spec.name for spec in head.classes].index(name)]


def speaking_head(path: Path) -> bytes:
    """A language head whose words for the labelled classes point where their images lie; and a word of its own."""
    made, learned = toy(), examples(toy(), range(40))
    embedding = embed_onnx(made.base, learned.tokens[:, 0], {})
    apart = embedding[learned.labels == 1].mean(axis=0) - embedding[learned.labels == 0].mean(axis=0)
    head = torch.zeros_like(made.model.trunk.model.embed_tokens.weight.detach())
    head[WORDS.index("good")], head[WORDS.index("scratch")] = torch.from_numpy(-apart), torch.from_numpy(apart)
    head[WORDS.index("dent")] = torch.eye(len(apart))[3]
    write_language_head(head, path, dtype=torch.float32)
    return path.read_bytes()


def test_a_class_without_a_label_starts_as_its_word_where_the_base_has_words(site: Site, tmp_path: Path) -> None:
    site.services.lines.add_class(LINE, NewClass(name="dent", defect=True), actor="test")
    site.label(range(24), level=70)
    write_transformers(tmp_path / "published")
    tokenizer, head = (tmp_path / "published/tokenizer.json").read_bytes(), speaking_head(tmp_path / "head")
    rows = []
    for words in (None, tokenizer, b"{}"):
        with site.services.begin() as session:
            base = session.scalars(select(BaseRow)).one()
            base.tokenizer = None if words is None else site.services.blobs.add(words)
            base.language_head = site.services.blobs.add(head)
        site.clock.us += 60_000_000
        site.ask()
        assert site.work("train")
        rows.append(row_of(site, "dent"))
        assert site.work("gate")
    without, with_words, damaged = rows
    assert (with_words - without).argmax() == 3
    assert abs(damaged - without)[3] < 0.1 * (with_words - without)[3], "no words, and yet a lesson"


def test_a_store_that_is_away_delays_and_loses_nothing(site: Site) -> None:
    site.label(range(24), level=70)
    site.ask()
    worker = bootstrap.train_worker(site.services)
    site.services.objects.down = True
    worker.run_one(threading.Event())
    assert site.last_job("train").state == "ready"
    with site.services.reads() as session:
        assert session.scalars(select(Snapshot)).first() is None


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    services = bootstrap.build(settings(tmp_path, stepps=3), objects=MemoryObjects())
    with pytest.raises(BadSettings, match=r"training\.options\.stepps"):
        build_trainer(services, signer=None)  # type: ignore[arg-type]
    services.engine.dispose()


def test_a_device_that_is_not_here_stops_the_worker_at_its_start(tmp_path: Path) -> None:
    services = bootstrap.build(settings(tmp_path, device="cuda:99"), objects=MemoryObjects())
    with pytest.raises(BadSettings, match=r"training\.options\.device: .*sees \d+ CUDA"):
        build_trainer(services, signer=None)  # type: ignore[arg-type]
    services.engine.dispose()


def test_what_a_lesson_needs_is_read_ahead(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = site.trainer()
    list(trainer.ahead())
    site.label(range(24), level=70)
    coming = [ReferenceItem(png(700, defect=False, level=40), CLASSES[0].name, "coming", "coming-0")]
    site.services.lines.add_references(LINE, "gate", coming, active_from=site.clock.us + 10**9)
    assert len(list(trainer.ahead())) == 25
    assert list(trainer.ahead()) == []
    looked: list[Any] = []
    monkeypatch.setattr("cloud.trainer.lesson.frame_tokens", lambda *args, **_: looked.append(args))
    site.clock.us += 2 * 10**9
    site.ask()
    assert Worker(jobs=site.services.jobs, handlers={"train": trainer.handle}, owner="t").run_one()
    assert looked == []
    assert len(site.candidates()) == 2


def test_a_store_that_is_away_stops_a_pass_and_nothing_is_skipped(site: Site) -> None:
    trainer = site.trainer()
    list(trainer.ahead())
    site.label(range(6), level=70)
    site.services.objects.down = True
    with pytest.raises(StoreUnavailable):
        list(trainer.ahead())
    site.services.objects.down = False
    assert len(list(trainer.ahead())) == 6
