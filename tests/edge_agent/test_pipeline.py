from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from edge_agent.aggregates import PeriodLedger
from edge_agent.decision import Judgement, decide
from edge_agent.envelope import Envelopes
from edge_agent.health import Meter
from edge_agent.part import InspectedPart, journal_row
from edge_agent.pipeline import Pipeline
from edge_agent.selector.pace import Pace
from edge_agent.selector.rule import Selector
from edge_agent.selector.source import TermSource
from edge_agent.spool.sample import Accepted, NotAccepted
from models.contracts.base import decode, sha256_hex
from models.contracts.sample import CannotJudge, SampleMeta, Stratum, Verdict
from models.contracts.uplink import LossReason, Priority
from models.runtime.image import Pixels
from models.runtime.inspector import Inspection, Inspector, load_model
from tests.edge_agent.making import START, Belt, HandClock, black
from tests.models.runtime.tiny import opened, tiny_base, tiny_release

EPOCH = "0123456789abcdef"


class MemorySpool:
    def __init__(self) -> None:
        self.samples: list[tuple[SampleMeta, bytes, Priority]] = []
        self.refuse = False
        self.seq = 0

    def put(self, build: Callable[[str, int], SampleMeta], image: bytes, prio: Priority) -> Accepted | NotAccepted:
        self.seq += 1
        if self.refuse:
            return NotAccepted(reason=LossReason.IO_ERROR, seq=self.seq)
        meta = build(EPOCH, self.seq)
        self.samples.append((decode(SampleMeta, meta.encode()), image, prio))
        return Accepted(sid=meta.sid, epoch=EPOCH, seq=self.seq)


class Line:
    """Remembers signals; `fail` breaks the wire, `order` shows what came before what."""

    def __init__(self, order: list[str]) -> None:
        self.signals: list[tuple[str, Verdict]] = []
        self.fail = False
        self._order = order

    def signal(self, serial: str, verdict: Verdict) -> None:
        if self.fail:
            raise OSError("PLC away")
        self.signals.append((serial, verdict))
        self._order.append("signal")


class Rows:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def close(self) -> None: ...


class Watcher:
    def __init__(self, order: list[str]) -> None:
        self.seen: list[Inspection] = []
        self._order = order

    def inspected(self, inspection: Inspection, judgement: Judgement, pixels: Pixels | None) -> None:
        self.seen.append(inspection)
        self._order.append("watch")


class Bench:
    """A pipeline with everything around it in memory."""

    def __init__(self, *, bytes_per_hour: int = 1 << 30, queue_frames: int = 4, model: bool = True) -> None:
        self.order: list[str] = []
        self.hand = HandClock()
        self.belt = Belt(self.hand)
        self.spool, self.line, self.journal = MemorySpool(), Line(self.order), Rows()
        self.watch, self.meter, self.inspector = Watcher(self.order), Meter(), Inspector()
        self.ledger = PeriodLedger(edge="edge-1", line="cells", hour_s=3600)
        self.judged: list[CannotJudge | None] = []
        if model:
            self.use(tiny_release(), number=1)
        self.pipeline = Pipeline(
            inspector=self.inspector,
            put=self.spool.put,
            output=self.line,
            journal=self.journal,
            selector=Selector(
                pace=Pace(bytes_per_hour=bytes_per_hour, hour_s=3600), audit_share=0.3, pi_min=0.02, seed=1
            ),
            ledger=self.ledger,
            envelopes=Envelopes(edge="edge-1", line="cells", clock=self.hand.clock()),
            terms=TermSource(),
            watch=self.watch,
            judged=lambda camera, reason: self.judged.append(reason),
            meter=self.meter,
            clock=self.hand.clock(),
            hour_s=3600,
            queue_frames=queue_frames,
        )

    def use(self, release: Any, *, number: int) -> None:
        self.inspector.swap(
            load_model(opened(), release.manifest, base_sha=tiny_base().sha, blobs=release.blobs, release=number)
        )


def test_a_part_goes_all_the_way() -> None:
    bench = Bench()
    frame = bench.belt.frame(product="p-1")
    bench.pipeline.process(frame)
    ((meta, image, prio),) = bench.spool.samples
    assert image == frame.data
    assert (meta.sid, meta.seq, meta.image.sha256) == (frame.id, 1, sha256_hex(frame.data))
    assert (meta.image.type, meta.image.width) == ("image/png", 48)
    assert meta.model.base == tiny_base().sha
    assert len(meta.evidence) == meta.evidence_grid[0] * meta.evidence_grid[1]
    assert meta.selection.parts.u is not None
    assert prio in (Priority.HARD, Priority.AUDIT)
    ((serial, verdict),) = bench.line.signals
    (row,) = bench.journal.rows
    assert (row["serial"], row["verdict"], row["sid"]) == (serial, verdict.value, frame.id)
    assert (row["release"], row["period"]) == (1, int(START.timestamp() // 3600))
    assert bench.meter.counts().selected == 1


def test_evidence_names_the_region_it_covers() -> None:
    bench, region = Bench(), (0.25, 0.0, 0.5, 1.0)
    release = tiny_release(2, seed=3)
    bench.inspector.swap(
        load_model(
            opened(), release.manifest.model_copy(update={"roi": region}), base_sha=tiny_base().sha,
            blobs=release.blobs, release=2,
        )
    )  # fmt: skip
    bench.pipeline.process(bench.belt.frame())
    ((meta, _, _),) = bench.spool.samples
    assert (meta.evidence is not None, meta.evidence_roi) == (True, region)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_journal_says_where_the_reasons_lie_unless_the_part_passed(verdict: Verdict) -> None:
    release = tiny_release()
    model = load_model(opened(), release.manifest, base_sha=tiny_base().sha, blobs=release.blobs, release=1)
    rows, columns = model.base.manifest.grid
    good = next(i for i, spec in enumerate(model.head.classes) if not spec.defect)
    toward = model.head.weight[good] - np.delete(model.head.weight, good, axis=0).mean(axis=0)
    evidence = np.zeros((rows * columns, len(toward)), np.float32)
    evidence[0] = toward  # only the patch in the upper left corner speaks for what is predicted
    probabilities = np.eye(len(model.head.classes), dtype=np.float32)[good]
    found = Inspection(model, None, None, 1.0, probabilities=probabilities, evidence=evidence)
    judgement = decide(
        probabilities, classes=model.head.classes, thresholds=model.thresholds, reason=None, latency_ms=1.0
    )
    judgement = replace(judgement, decision=judgement.decision.model_copy(update={"verdict": verdict}))
    frame = Belt(HandClock()).frame()
    row = journal_row(InspectedPart(frame, model, judgement, found), hour_s=3600, kept=None, sid=None)
    assert row["place"] == (None if verdict is Verdict.PASS else "at the upper left")
    spread = replace(found, evidence=np.tile(toward, (len(evidence), 1)))
    row = journal_row(InspectedPart(frame, model, judgement, spread), hour_s=3600, kept=None, sid=None)
    assert row["place"] is None


def test_the_line_hears_before_anything_else() -> None:
    bench = Bench()
    bench.pipeline.process(bench.belt.frame())
    assert bench.order == ["signal", "watch"]


@pytest.mark.parametrize(
    ("data", "reason", "media"),
    [
        (b"\x89PNG\r\n\x1a\nbroken", CannotJudge.UNREADABLE, "application/octet-stream"),
        (b"hello", CannotJudge.UNREADABLE, "application/octet-stream"),
        (black(), CannotJudge.TOO_DARK, "image/png"),
    ],
)
def test_what_cannot_be_judged_is_unsure_and_kept(data: bytes, reason: CannotJudge, media: str) -> None:
    bench = Bench()
    bench.pipeline.process(bench.belt.frame(data=data))
    ((meta, image, _),) = bench.spool.samples
    assert image == data
    assert (meta.decision.verdict, meta.decision.cannot_judge) == (Verdict.UNSURE, reason)
    assert (meta.selection.stratum, meta.selection.pi_select, meta.image.type) == (Stratum.CANNOT_JUDGE, 1.0, media)
    assert bench.judged == [reason]
    assert bench.meter.counts().unjudged == 1


def test_a_truncated_png_keeps_its_type_without_a_size() -> None:
    bench = Bench()
    bench.pipeline.process(bench.belt.frame(data=bench.belt.frame().data[:60]))
    image = bench.spool.samples[0][0].image
    assert (image.type, image.width) == ("image/png", None)


def test_without_a_model_every_part_is_answered_and_counted() -> None:
    bench = Bench(model=False)
    bench.pipeline.process(bench.belt.frame())
    assert bench.line.signals[0][1] is Verdict.UNSURE
    assert bench.spool.samples == []
    assert (bench.journal.rows[0]["cannot_judge"], bench.journal.rows[0]["release"]) == ("no_model", 0)
    ((_, (record,)),) = bench.ledger.due(START + timedelta(hours=2), epoch=EPOCH)
    assert (record.cells[0].release, record.cells[0].n) == (0, 1)


def test_a_model_that_fails_on_a_frame_is_bad_scores_not_an_outage() -> None:
    bench = Bench()

    class Exploding:
        def tokens(self, pixels: object) -> object:
            raise RuntimeError("onnxruntime says no")

        manifest = bench.inspector.current.base.manifest

    from dataclasses import replace

    bench.inspector.swap(replace(bench.inspector.current, base=Exploding()))
    bench.pipeline.process(bench.belt.frame())
    assert bench.spool.samples[0][0].decision.cannot_judge is CannotJudge.BAD_SCORES
    assert bench.meter.counts().pipeline_faults == 1


def test_a_line_that_does_not_listen_is_counted_and_the_part_is_finished() -> None:
    bench = Bench()
    bench.line.fail = True
    bench.pipeline.process(bench.belt.frame())
    assert bench.meter.counts().output_faults == 1
    assert len(bench.journal.rows) == 1


def test_a_spool_that_cannot_take_it_does_not_stop_inspection() -> None:
    bench = Bench()
    bench.spool.refuse = True
    bench.pipeline.process(bench.belt.frame())
    assert bench.meter.counts().not_accepted == 1
    assert (bench.journal.rows[0]["sid"], bench.journal.rows[0]["stratum"]) == (None, None)


def test_aggregates_count_every_part_and_every_kept_one() -> None:
    bench = Bench(bytes_per_hour=20_000)
    for _ in range(60):
        bench.hand.move(2)
        bench.pipeline.process(bench.belt.frame())
    ((_, records),) = bench.ledger.due(START + timedelta(hours=2), epoch=EPOCH)
    cells = [cell for record in records for cell in record.cells]
    assert sum(cell.n for cell in cells) == 60
    assert sum(cell.n_selected for cell in cells) == len(bench.spool.samples) < 60
    assert sum(len(i) for _, i, _ in bench.spool.samples) <= 20_000


def test_after_a_swap_frames_name_the_new_model() -> None:
    bench = Bench()
    bench.pipeline.process(bench.belt.frame(seed=1))
    bench.use(tiny_release(2, seed=2), number=2)
    bench.pipeline.process(bench.belt.frame(seed=1))
    first, second = (meta for meta, _, _ in bench.spool.samples)
    assert (first.model.release, second.model.release) == (1, 2)
    assert second.selection.parts.disagreement is not None
    assert second.selection.parts.near_duplicate_of is None


def test_a_full_queue_answers_unsure_at_once_and_counts_the_drop() -> None:
    bench = Bench(queue_frames=2)
    frames = [bench.belt.frame() for _ in range(5)]
    for frame in frames:
        bench.pipeline.offer(frame)  # the thread is not running: nobody takes them
    assert bench.meter.counts().dropped_frames == 3
    assert [row["cannot_judge"] for row in bench.journal.rows] == ["late"] * 3
    assert [verdict for _, verdict in bench.line.signals] == [Verdict.UNSURE] * 3
    bench.pipeline.start()
    bench.pipeline.stop(10)
    assert len(bench.journal.rows) == 5


def test_there_is_room_until_half_the_queue_is_taken() -> None:
    bench = Bench(queue_frames=4)
    seen = []
    for _ in range(4):
        seen.append(bench.pipeline.room())
        bench.pipeline.offer(bench.belt.frame())
    assert seen == [True, True, True, False]


def test_every_offered_frame_is_answered_once_while_models_are_swapped() -> None:
    bench = Bench(queue_frames=100)
    bench.pipeline.start()
    swapping = threading.Thread(
        target=lambda: [bench.use(tiny_release(1 + i % 2, seed=1 + i % 2), number=i + 2) for i in range(20)]
    )
    swapping.start()
    frames = [bench.belt.frame() for _ in range(60)]
    for frame in frames:
        bench.pipeline.offer(frame)
    swapping.join(20)
    bench.pipeline.stop(20)
    assert [serial for serial, _ in bench.line.signals] == [frame.part.serial for frame in frames]
    assert bench.meter.counts().dropped_frames == 0


def test_an_operator_can_flag_a_recent_part_that_was_not_kept() -> None:
    bench = Bench(bytes_per_hour=1)
    frame = bench.belt.frame()
    bench.pipeline.process(frame)
    assert bench.spool.samples == []
    sid = bench.pipeline.flag(frame.part.serial)
    assert sid == frame.id
    meta, _, prio = bench.spool.samples[0]
    assert (meta.selection.stratum, meta.selection.pi_select, prio) == (Stratum.FLAGGED, 1.0, Priority.FLAGGED)
    assert bench.pipeline.flag(frame.part.serial) == sid
    assert len(bench.spool.samples) == 1
    assert bench.pipeline.flag("never-seen") is None
