"""The whole of a model's life once, on this machine: build, first head, training speed, an hour's lesson, int8 files,
parity, adapters swapped under load, and evaluation of the files on the processor, before and after.

It proves mechanics for any weights. With random ones (`Rehearsed.pretrained` says so) its accuracies mean nothing: no
image was ever understood. What is judged was never trained on; a group stays in one set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.contracts.model_manifest import ClassSpec, Lineage
from models.nn.adapt import AdaptSettings
from models.nn.bench.ours import Frozen, Swaps, measure_swaps
from models.nn.build import Source, build
from models.nn.config import EdgeConfig
from models.nn.device import choose_device, describe
from models.nn.examples import Examples
from models.nn.first import Ground, first_release
from models.nn.lora import lora_groups
from models.nn.model import DeepSeekEdge
from models.nn.package import Packed, feeds_of
from models.nn.parity import Parity, compare_exports
from models.nn.release import Costs, Identity, Lesson, ReleaseSettings, embed_onnx, log_loss, make_release
from models.nn.starting import VERSION, CannotTrain, LabelledImage, StartingSettings, decoded, split, tokenize
from models.nn.training_speed import SpeedRow, gemm_tflops, measure_training
from models.runtime.base import Base, SessionLimits
from models.runtime.bundle import open_base
from models.runtime.golden import read_golden
from models.runtime.heads import load_head

EXPORT_FRAMES = 8
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to rehearse. `images` per set and product at most; `batches` are timed, `compiled` both ways if wanted.

    `source` None is random weights from `seed`. `batch` is the lesson's, half new and half memory.
    """

    config: EdgeConfig
    source: Source | None
    device: str = "auto"
    threads: int = 1
    images: int = 64
    steps: int = 40
    batch: int = 64
    batches: tuple[int, ...] = (16, 32, 64)
    compiled: tuple[bool, ...] = (False,)
    swaps: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sets:
    """Images of the product the line knows, of the one that is new, and of both to judge and to test with."""

    known: list[LabelledImage]
    new: list[LabelledImage]
    gate: list[LabelledImage]
    test_known: list[LabelledImage]
    test_new: list[LabelledImage]
    products: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """A release on images it never saw: forced calls at its own cut. `auroc` of the defect score, `loss` per class."""

    images: int
    balanced_accuracy: float
    auroc: float
    loss: float


@dataclass
class Rehearsed:
    """What was found. `seconds` per step in order; `judged` by release (before, after) and product."""

    device: str
    gemm_tflops: float
    products: tuple[str, str]
    pretrained: str = ""
    parameters: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    speed: list[SpeedRow] = field(default_factory=list)
    parity: dict[str, Parity] = field(default_factory=dict)
    lesson: dict[str, float] = field(default_factory=dict)
    swaps: Swaps | None = None
    judged: dict[str, dict[str, Judged]] = field(default_factory=dict)


def divide(images: Sequence[LabelledImage], *, limit: int, known: str | None, seed: int) -> Sets:
    """Cut images of two products into sets that share no group, at most `limit` of each, classes in equal parts.

    Args:
        known: the product the line starts with; the most frequent one when left out.

    Raises:
        CannotTrain: there are not two products, or their groups cannot be cut so that every set has every class.
    """
    counts: dict[str, int] = {}
    for image in images:
        if image.domain is not None:
            counts[image.domain] = counts.get(image.domain, 0) + 1
    if len(counts) < 2 or (known is not None and known not in counts):
        said = ", ".join(sorted(counts)) or "none"
        raise CannotTrain(f"two products are needed in the column domain of labels.csv, there are: {said}")
    old = known or max(sorted(counts), key=lambda name: counts[name])
    fresh = max(sorted(set(counts) - {old}), key=lambda name: counts[name])
    learn, test, gate = {}, {}, []
    for name in (old, fresh):
        rest = [image for image in images if image.domain == name]
        learn[name], held = split(rest, share=0.5, seed=seed)
        judging, test[name] = split(held, share=0.5, seed=seed)
        gate += _some(judging, limit // 2, seed)
    return Sets(
        _some(learn[old], limit, seed), _some(learn[fresh], limit, seed), gate,
        _some(test[old], limit, seed), _some(test[fresh], limit, seed), (old, fresh),
    )  # fmt: skip


def _some(images: Sequence[LabelledImage], limit: int, seed: int) -> list[LabelledImage]:
    """At most `limit`, the same number of every class as far as there are."""
    rng = np.random.default_rng(seed)
    classes = sorted({image.label for image in images})
    share = max(1, limit // len(classes))
    found: list[LabelledImage] = []
    for name in classes:
        rows = [image for image in images if image.label == name]
        found += [rows[i] for i in np.sort(rng.permutation(len(rows))[:share])]
    return found


class Rehearsal:
    """One rehearsal in `folder`, which gets the base and both releases; `run` does everything."""

    def __init__(
        self, plan: Plan, sets: Sets, classes: list[ClassSpec], folder: Path, *, now: datetime,
        say: Say = lambda text: None,
    ) -> None:  # fmt: skip
        self._plan, self._sets, self._classes, self._folder = plan, sets, classes, folder
        self._now, self._say = now, say
        self._device = choose_device(plan.device)
        self._limits = SessionLimits(threads=plan.threads)
        self._adapt = AdaptSettings(
            batch_new=plan.batch // 2, batch_memory=plan.batch // 2, min_steps=plan.steps, max_steps=plan.steps,
            threads=plan.threads, device=plan.device,
        )  # fmt: skip

    def run(self) -> Rehearsed:
        """Every step, timed.

        Raises:
            CannotTrain: the images do not allow a release; one that cannot be read is named before anything is built.
            BadPublished, BadPrompt, BadBuild: the checkpoint cannot be used.
        """
        plan, sets = self._plan, self._sets
        for image in (*sets.known, *sets.new, *sets.gate, *sets.test_known, *sets.test_new):
            decoded([image])
        found = Rehearsed(describe(self._device), gemm_tflops(self._device), sets.products)
        with self._step(found, "build, int8 export, comparison with torch"):
            model, frozen = self._build(found)
        base, golden = open_base(frozen.manifest, frozen.files, limits=self._limits), self._golden(frozen)
        with self._step(found, "images through the exported tower"):
            known, new, gate, *tests = (
                self._tokens(base, part) for part in (sets.known, sets.new, sets.gate, sets.test_known, sets.test_new)
            )
        with self._step(found, "first head, calibrated"):
            first, _ = first_release(
                Ground(base, model, golden), sets.known, validation=sets.gate, line="rehearsal",
                classes=self._classes, settings=self._starting(), seed=plan.seed, now=self._now,
            )  # fmt: skip
        with self._step(found, "training speed"):
            found.speed = measure_training(
                model, known, classes=len(self._classes), batches=plan.batches, compiled=plan.compiled,
                device=self._device, say=self._say,
            )  # fmt: skip
        with self._step(found, "lesson: LoRA, head, calibration, release, parity"):
            second = self._learn(found, base, model, golden, known=known, new=new, gate=gate)
        with self._step(found, "parity of the exports"):
            head = load_head(second.manifest.head, second.blobs[second.manifest.head.blob.sha256],
                             embedding=base.manifest.embedding)  # fmt: skip
            found.parity = compare_exports(model, head, gate.tokens[:EXPORT_FRAMES, 0])
        with self._step(found, "swaps under load"):
            found.swaps = measure_swaps(frozen, plan.threads, plan.swaps) if plan.swaps else None
        with self._step(found, "evaluation of the files on the processor"):
            for name, release in (("before", first), ("after", second)):
                found.judged[name] = {
                    product: self._judge(base, release, test)
                    for product, test in zip(sets.products, tests, strict=True)
                }
        return found

    @contextmanager
    def _step(self, found: Rehearsed, name: str) -> Iterator[None]:
        self._say(name)
        begin = time.perf_counter()
        yield
        found.seconds[name] = time.perf_counter() - begin

    def _build(self, found: Rehearsed) -> tuple[DeepSeekEdge, Frozen]:
        plan = self._plan
        made = build(
            plan.config, source=plan.source, family="rehearsal", version=1, seed=plan.seed, now=self._now, say=self._say
        )
        manifest = made.base.manifest
        found.pretrained, found.parameters = manifest.pretrained, manifest.parameters
        found.errors = {name: float(value) for name, value in made.report.items() if name.endswith("_error")}
        return made.model, Frozen(manifest, made.base.write(self._folder / "files"))

    def _golden(self, frozen: Frozen) -> list[NDArray[np.uint8]]:
        return read_golden(frozen.files[frozen.manifest.file("golden").name].read_bytes())

    def _tokens(self, base: Base, images: Sequence[LabelledImage]) -> Examples:
        names = [spec.name for spec in self._classes]
        labels = np.array([names.index(image.label) for image in images], dtype=np.int64)
        return tokenize(base, decoded(images), labels, self._starting())

    def _starting(self) -> StartingSettings:
        return StartingSettings(flips=False, release=ReleaseSettings(adapt=self._adapt))

    def _learn(
        self, found: Rehearsed, base: Base, model: DeepSeekEdge, golden: Sequence[NDArray[np.uint8]], *,
        known: Examples, new: Examples, gate: Examples,
    ) -> Packed:  # fmt: skip
        lesson = Lesson(
            new=new, memory=known, validation=gate, golden=golden, classes=self._classes, costs=Costs(), start=None,
            domains=[image.domain for image in self._sets.gate],
        )  # fmt: skip
        lineage = Lineage(
            training_run="rehearsal", parent_release=1, labels=len(new), code_version=VERSION, seed=self._plan.seed,
            trained_at=self._now,
        )  # fmt: skip
        identity = Identity(base.sha256, "rehearsal", 2, lineage, self._now)
        made = make_release(
            base, model, lesson, identity, settings=ReleaseSettings(adapt=self._adapt), seed=self._plan.seed
        )
        found.lesson = {
            **made.metrics,
            "lora_tensors": float(sum(1 + len(group.outputs) for group in lora_groups(model.config))),
        }
        return made.packed

    def _judge(self, base: Base, release: Packed, test: Examples) -> Judged:
        """The packed bytes as a box would load them, on images nothing was trained or tuned on."""
        manifest = release.manifest
        adapter = manifest.adapter and release.blobs[manifest.adapter.blob.sha256]
        head = load_head(manifest.head, release.blobs[manifest.head.blob.sha256], embedding=base.manifest.embedding)
        embedding = embed_onnx(base, test.tokens[:, 0], feeds_of(base.manifest, adapter))
        probabilities = head.probabilities(embedding)
        scores = head.defect_scores(probabilities)
        truth = np.array([spec.defect for spec in self._classes])[test.labels]
        called = scores >= manifest.thresholds.call_at
        return Judged(
            images=len(test), auroc=auroc(scores, truth),
            balanced_accuracy=float(np.mean([(called[truth == kind] == kind).mean() for kind in (False, True)])),
            loss=log_loss(np.log(np.maximum(probabilities, 1e-9)), test.labels),
        )  # fmt: skip


def auroc(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """The share of pairs of a defect and a good part in which the defect scores higher, ties as one half
    (Mann and Whitney, Ann. Math. Stat. 1947).

    Raises:
        ValueError: one kind is missing.
    """
    bad, good = scores[truth], scores[~truth]
    if not len(bad) or not len(good):
        raise ValueError("good and defective images are needed")
    higher = (bad[:, None] > good[None]).mean() + 0.5 * (bad[:, None] == good[None]).mean()
    return float(higher)
