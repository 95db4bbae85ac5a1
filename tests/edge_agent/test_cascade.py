"""A gate in front of the line's model, part by part: who decides, until when, what is counted and what is recorded."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edge_agent.aggregates import PeriodLedger
from edge_agent.cascade import NO_LINE_MODEL, NO_MODELS, OTHER_RELEASE, Cascade, CascadePolicy, NoGate, trouble
from edge_agent.decision import Judgement
from edge_agent.envelope import Envelopes
from edge_agent.health import Meter, ModelState, cascade_health
from edge_agent.pipeline import Pipeline
from edge_agent.second_look import AUDIT_QUEUE, SecondLook
from edge_agent.selector.pace import Pace
from edge_agent.selector.rule import Selector
from edge_agent.selector.source import TermSource
from models.contracts.base import decode
from models.contracts.model_manifest import CascadeCuts, ClassSpec
from models.contracts.sample import CannotJudge, Verdict
from models.contracts.telemetry import Aggregate, CascadeHealth
from models.runtime.image import Pixels
from models.runtime.inspector import Inspection, Inspector, LineModel, load_model
from tests.edge_agent.making import START, Belt, HandClock, black
from tests.edge_agent.test_pipeline import EPOCH, Line, MemorySpool, Rows, Watcher
from tests.models.runtime.tiny import TinyRelease, opened, tiny_base, tiny_release

ALL_PASS = CascadeCuts(certain_pass_below=0.9)
ALL_REJECT = CascadeCuts(certain_reject_above=0.05)
NOTHING = CascadeCuts()


def model(release: TinyRelease, *, number: int, cuts: CascadeCuts | None = None, call_at: float = 0.5) -> LineModel:
    thresholds = release.manifest.thresholds.model_copy(
        update={"call_at": call_at, "pass_below": call_at, "reject_above": call_at}
    )
    manifest = release.manifest.model_copy(update={"cascade": cuts, "thresholds": thresholds})
    return load_model(opened(), manifest, base_sha=tiny_base().sha, blobs=release.blobs, release=number)


def gate_model(cuts: CascadeCuts | None, *, number: int = 7) -> LineModel:
    """Its scores lie between 0.05 and 0.9: it passes all below 0.9, rejects all from 0.05, or is never sure."""
    call_at = 0.05 if cuts is ALL_REJECT else 0.9
    return model(tiny_release(1), number=number, cuts=cuts, call_at=call_at)


def line_model(verdict: Verdict = Verdict.REJECT, *, number: int = 3) -> LineModel:
    return model(tiny_release(2, seed=2), number=number, call_at=0.01 if verdict is Verdict.REJECT else 0.99)


class Waiting:
    """A base that answers only when it is let go, and says when it was asked."""

    def __init__(self, base: Any) -> None:
        self.base, self.manifest = base, base.manifest
        self.go, self.asked, self.calls = threading.Event(), threading.Event(), 0

    def tokens(self, pixels: Any) -> Any:
        self.calls += 1
        self.asked.set()
        assert self.go.wait(20)
        return self.base.tokens(pixels)

    def embed(self, tokens: Any, lora: Any) -> Any:
        return self.base.embed(tokens, lora)


class Box:
    """A pipeline with a cascade and everything around it in memory."""

    def __init__(
        self, *, gate: LineModel | None, line: LineModel | None, audit_share: float = 0.0, deadline_ms: float = 60_000,
        on_late: Any = "unsure",
    ) -> None:  # fmt: skip
        self.order: list[str] = []
        self.hand = HandClock()
        self.belt = Belt(self.hand)
        self.spool, self.wire, self.journal = MemorySpool(), Line(self.order), Rows()
        self.gate_watch, self.line_watch, self.meter = Watcher([]), Watcher([]), Meter()
        self.ledger = PeriodLedger(edge="edge-1", line="cells", hour_s=3600)
        self.gate, self.inspector, counting = Inspector(), Inspector(), threading.Lock()
        for inspector, used in ((self.gate, gate), (self.inspector, line)):
            if used is not None:
                inspector.swap(used)
        self.second = SecondLook(meter=self.meter, watch=self.line_watch)
        self.cascade = Cascade(
            gate=self.gate, line=self.inspector, policy=CascadePolicy(audit_share, deadline_ms, on_late),
            second=self.second, gate_watch=self.gate_watch, hour=self.ledger.cascade, counting=counting,
            meter=self.meter, clock=self.hand.clock(), rng=random.Random(5),
        )  # fmt: skip
        self.pipeline = Pipeline(
            inspector=self.inspector, put=self.spool.put, output=self.wire, journal=self.journal,
            selector=Selector(pace=Pace(bytes_per_hour=1 << 30, hour_s=3600), audit_share=0.3, pi_min=0.02, seed=1),
            ledger=self.ledger, envelopes=Envelopes(edge="edge-1", line="cells", clock=self.hand.clock()),
            terms=TermSource(), watch=Watcher([]), judged=lambda camera, reason: None, meter=self.meter,
            clock=self.hand.clock(), hour_s=3600, queue_frames=4, cascade=self.cascade, counting=counting,
        )  # fmt: skip
        self.cascade.start()

    def inspect(self, **frame: Any) -> dict[str, Any]:
        self.pipeline.process(self.belt.frame(**frame))
        return self.journal.rows[-1]

    def close(self) -> None:
        self.cascade.stop(20)


@pytest.fixture
def box() -> Any:
    boxes: list[Box] = []

    def make(**with_: Any) -> Box:
        boxes.append(Box(**with_))
        return boxes[-1]

    yield make
    for one in boxes:
        one.close()


Make = Callable[..., Box]


@pytest.mark.parametrize(("cuts", "verdict"), [(ALL_PASS, Verdict.PASS), (ALL_REJECT, Verdict.REJECT)])
def test_what_the_gate_is_certain_of_ends_there(box: Make, cuts: CascadeCuts, verdict: Verdict) -> None:
    one = box(gate=gate_model(cuts), line=line_model())
    row = one.inspect()
    assert (row["verdict"], row["stage"], row["release"], row["gate_release"]) == (verdict.value, "gate", 3, 7)
    assert one.line_watch.seen == []
    ((meta, _, _),) = one.spool.samples
    assert (meta.model.release, meta.model.gate) == (3, 7)
    assert meta.model.head == tiny_release(1).manifest.head.blob.sha256
    assert meta.decision.defect_score == row["gate_score"]


def test_what_the_gate_is_not_certain_of_is_the_line_models(box: Make) -> None:
    one = box(gate=gate_model(NOTHING), line=line_model())
    row = one.inspect()
    assert (row["verdict"], row["stage"], row["release"]) == ("reject", "line", 3)
    ((meta, _, _),) = one.spool.samples
    assert (meta.model.release, meta.model.gate) == (3, None)
    assert meta.model.head == tiny_release(2, seed=2).manifest.head.blob.sha256
    assert [i.model.release for i in one.gate_watch.seen] == [7]
    one.close()
    assert [i.model.release for i in one.line_watch.seen] == [3]


def test_a_frame_the_gate_cannot_judge_goes_to_the_line_model(box: Make) -> None:
    one = box(gate=gate_model(ALL_PASS), line=line_model())
    row = one.inspect(data=black())
    assert (row["stage"], row["cannot_judge"]) == ("line", "too_dark")
    assert one.inspect(data=b"no image")["cannot_judge"] == "unreadable"


@pytest.mark.parametrize(("on_late", "verdict"), [("unsure", "unsure"), ("gate", "pass")])
def test_an_answer_after_the_deadline_is_the_defined_one(box: Make, on_late: str, verdict: str) -> None:
    slow = line_model()
    waiting = Waiting(slow.base)
    one = box(gate=gate_model(NOTHING), line=replace(slow, base=waiting), deadline_ms=30, on_late=on_late)
    row = one.inspect()
    assert (row["verdict"], row["stage"], row["release"], row["gate_release"]) == (verdict, "late", 3, 7)
    assert row["defect_score"] == row["gate_score"] is not None
    assert one.spool.samples[0][0].model.gate == 7
    waiting.go.set()
    one.close()
    assert [i.model.release for i in one.line_watch.seen] == [3], "a late answer still counts for its probation"
    total = one.cascade.total()
    assert (total.n_escalated, total.n_late, total.n_ended) == (1, 1, 0)


def test_a_part_that_is_late_already_does_not_trouble_the_line_model(box: Make) -> None:
    slow = line_model()
    waiting = Waiting(slow.base)
    waiting.go.set()
    one = box(gate=gate_model(NOTHING), line=replace(slow, base=waiting), deadline_ms=500)
    frame = one.belt.frame()
    one.hand.move(0.6)
    one.pipeline.process(frame)
    assert (one.journal.rows[0]["stage"], waiting.calls) == ("late", 0)


@pytest.mark.parametrize(("on_late", "verdict"), [("unsure", "unsure"), ("gate", "reject")])
def test_a_certain_part_past_its_deadline_is_late_too(box: Make, on_late: str, verdict: str) -> None:
    sure = gate_model(CascadeCuts(certain_reject_above=0.0))  # its thresholds alone would pass the part
    one = box(gate=sure, line=line_model(), deadline_ms=500, on_late=on_late, audit_share=1.0)
    frame = one.belt.frame()
    one.hand.move(0.6)
    one.pipeline.process(frame)
    row = one.journal.rows[0]
    assert (row["verdict"], row["stage"], row["gate_release"], row["audit_probability"]) == (verdict, "late", 7, None)
    assert row["latency_ms"] == pytest.approx(600)
    total = one.cascade.total()
    assert (total.n_late, total.n_escalated, total.n_ended, total.n_audited) == (1, 1, 0, 0)
    assert one.line_watch.seen == []
    assert one.inspect()["stage"] == "gate", "the next part is in time"


def test_a_part_nobody_waits_for_is_not_begun(box: Make) -> None:
    slow = line_model()
    waiting = Waiting(slow.base)
    one = box(gate=gate_model(NOTHING), line=replace(slow, base=waiting), deadline_ms=30)
    assert [one.inspect()["stage"] for _ in range(3)] == ["late"] * 3
    waiting.go.set()
    one.close()
    assert waiting.calls == 1


def test_late_without_a_gates_answer_is_unjudged(box: Make) -> None:
    slow = line_model()
    one = box(gate=None, line=replace(slow, base=Waiting(slow.base)), deadline_ms=20)
    row = one.inspect()
    assert (row["verdict"], row["cannot_judge"], row["stage"]) == ("unsure", "late", "late")
    one.inspector.current.base.go.set()


def test_an_audited_part_is_answered_by_the_gate_before_the_line_model_looks(box: Make) -> None:
    slow = line_model(Verdict.REJECT)
    waiting = Waiting(slow.base)
    one = box(gate=gate_model(ALL_PASS), line=replace(slow, base=waiting), audit_share=1.0)
    row = one.inspect()
    assert (row["verdict"], row["stage"], row["audit_probability"]) == ("pass", "gate", 1.0)
    assert one.wire.signals[-1][1] is Verdict.PASS
    assert waiting.asked.wait(20)
    assert one.cascade.total().n_audited == 0
    waiting.go.set()
    while one.cascade.total().n_audited == 0:
        threading.Event().wait(0.01)
    total = one.cascade.total()
    assert (total.n_pass, total.escapes, total.overkills, total.sum_w_escape) == (1, 1, 0, 1.0)
    assert one.inspect()["verdict"] == "pass", "an audit changes no verdict"


def test_audits_find_overkill_and_carry_their_probability(box: Make) -> None:
    one = box(gate=gate_model(ALL_REJECT), line=line_model(Verdict.PASS), audit_share=0.5)
    audited = 0
    for _ in range(12):
        audited += one.inspect()["audit_probability"] is not None
        while one.cascade.total().n_audited < audited:
            threading.Event().wait(0.005)
    total = one.cascade.total()
    assert 0 < total.n_audited == total.overkills == audited < 12
    assert total.sum_w == pytest.approx(2.0 * audited)
    health = cascade_health(total, gate_line="g", gate=ModelState(7, None, None, "committed"), trouble=None)
    assert (health.overkill.rate, health.escape.rate) == (1.0, 0.0)
    assert decode(CascadeHealth, health.encode()) == health


def test_a_queue_full_of_audits_loses_the_next_and_says_so(box: Make) -> None:
    slow = line_model()
    waiting = Waiting(slow.base)
    one = box(gate=gate_model(ALL_PASS), line=replace(slow, base=waiting), audit_share=1.0)
    one.inspect()
    assert waiting.asked.wait(20)
    for _ in range(AUDIT_QUEUE + 2):
        one.inspect()
    assert one.cascade.total().n_audits_lost == 2
    waiting.go.set()


def test_an_audit_whose_model_crashed_is_lost_and_no_disagreement(box: Make) -> None:
    good = line_model()

    class Exploding:
        manifest = good.base.manifest

        def tokens(self, pixels: object) -> object:
            raise RuntimeError("onnxruntime says no")

    one = box(gate=gate_model(ALL_PASS), line=replace(good, base=Exploding()), audit_share=1.0)
    assert one.inspect()["audit_probability"] == 1.0
    while not (one.cascade.total().n_audited or one.cascade.total().n_audits_lost):
        threading.Event().wait(0.005)
    total = one.cascade.total()
    assert (total.n_audits_lost, total.n_audited, total.unsures, total.sum_w) == (1, 0, 0, 0.0)
    assert one.meter.counts().pipeline_faults == 1


def test_an_escalated_part_overtakes_waiting_audits() -> None:
    slow, order = line_model(), []
    waiting = Waiting(slow.base)

    class Order:
        def inspected(self, inspection: Inspection, judgement: Judgement, pixels: Pixels | None) -> None:
            order.append("line")

    second = SecondLook(meter=Meter(), watch=Order())
    picture = tiny_base().frames[0]
    held = replace(slow, base=waiting)
    second.start()
    for name in ("audit 1", "audit 2"):
        assert second.audit(held, picture, lambda judgement, name=name: order.append(name))
    assert waiting.asked.wait(20)
    found: list[Inspection | None] = []
    asking = threading.Thread(target=lambda: found.append(second.ask(held, picture, within_s=20)))
    asking.start()
    while not second._asked:
        threading.Event().wait(0.005)
    waiting.go.set()
    asking.join(20)
    second.stop(20)
    assert found[0] is not None
    assert order[:3] == ["audit 1", "line", "line"]


@pytest.mark.parametrize(
    ("gate", "why"),
    [(None, NoGate.NOT_INSTALLED), (gate_model(None), NoGate.NO_CUTS)],
)
def test_without_a_usable_gate_every_part_goes_to_the_line_model(box: Make, gate: Any, why: NoGate) -> None:
    one = box(gate=gate, line=line_model())
    row = one.inspect()
    assert (row["verdict"], row["stage"], row["gate_release"]) == ("reject", "line", None)
    assert one.cascade.trouble == why.value
    assert "every part goes to the line's model" in one.cascade.trouble


def test_cuts_of_another_release_of_the_line_go_on_deciding_and_are_told(box: Make) -> None:
    line = line_model()
    cuts = ALL_PASS.model_copy(update={"calibrated_against": line.manifest_sha})
    one = box(gate=gate_model(cuts), line=line)
    assert one.cascade.trouble is None
    one.inspector.swap(model(tiny_release(9, seed=9), number=4))
    assert one.cascade.trouble == OTHER_RELEASE
    assert one.inspect()["stage"] == "gate"
    health = cascade_health(
        one.cascade.total(), gate_line="g", gate=ModelState(7, None, None, "committed"), trouble=one.cascade.trouble
    )
    assert decode(CascadeHealth, health.encode()).trouble == OTHER_RELEASE
    assert trouble(gate_model(ALL_PASS), line) is None, "cuts that name no release are not compared"


def test_a_revoked_gate_is_named_as_the_trouble() -> None:
    why = trouble(None, line_model(), revoked=4)
    assert "release 4" in why
    assert "revoked" in why
    assert "every part goes to the line's model" in why
    assert trouble(gate_model(ALL_PASS), line_model(), revoked=4) is None


def test_a_gate_with_classes_the_line_does_not_know_decides_nothing(box: Make) -> None:
    strange = gate_model(ALL_PASS)
    spec = strange.head.spec.model_copy(
        update={"classes": [ClassSpec(name="good", defect=False), ClassSpec(name="dent", defect=True)]}
    )
    strange = replace(strange, head=replace(strange.head, spec=spec))
    one = box(gate=strange, line=line_model())
    assert one.inspect()["stage"] == "line"
    assert one.cascade.trouble == NoGate.OTHER_CLASSES.value


def test_without_the_line_model_certain_answers_stand_and_the_rest_is_unsure(box: Make) -> None:
    certain = box(gate=gate_model(ALL_PASS), line=None, audit_share=1.0)
    row = certain.inspect()
    assert (row["verdict"], row["stage"], row["release"], row["audit_probability"]) == ("pass", "gate", 0, None)
    assert certain.spool.samples[0][0].model.gate == 7
    other = box(gate=gate_model(NOTHING), line=None)
    row = other.inspect()
    assert (row["verdict"], row["stage"], row["cannot_judge"]) == ("unsure", "no_line_model", None)
    assert other.cascade.trouble == NO_LINE_MODEL


def test_without_any_model_every_part_is_unsure(box: Make) -> None:
    one = box(gate=None, line=None)
    row = one.inspect()
    assert (row["verdict"], row["cannot_judge"], row["release"]) == ("unsure", "no_model", 0)
    assert one.cascade.trouble == NO_MODELS
    assert one.spool.samples == []


def test_a_failing_line_model_is_unsure_and_the_next_part_is_judged(box: Make) -> None:
    good = line_model()

    class Exploding:
        manifest = good.base.manifest

        def tokens(self, pixels: object) -> object:
            raise RuntimeError("onnxruntime says no")

    one = box(gate=gate_model(NOTHING), line=replace(good, base=Exploding()))
    assert one.inspect()["cannot_judge"] == CannotJudge.BAD_SCORES.value
    one.inspector.swap(good)
    assert one.inspect()["verdict"] == "reject"


def test_models_that_take_turns_keep_their_own_terms_and_memory(box: Make) -> None:
    """A part decided by the other model in between is no swap: no disagreement, and near duplicates stay known."""
    one = box(gate=gate_model(NOTHING), line=line_model())
    scores = sorted(one.inspect(seed=i)["gate_score"] for i in range(12))
    middle = CascadeCuts(certain_pass_below=scores[6])
    other = box(gate=gate_model(middle), line=line_model())
    rows = [other.inspect(seed=i) for i in range(12)]
    assert [row["stage"] for row in rows].count("gate") == 6
    terms = [meta.selection.parts for meta, _, _ in other.spool.samples]
    assert len(terms) == 12
    assert all(part.novelty is not None and part.disagreement is None for part in terms)
    assert sorted(len(memory) for _, memory in other.pipeline._selector._memories.values()) == [6, 6]


def test_the_hours_sums_ride_in_its_first_record_and_survive_a_restart(box: Make) -> None:
    one = box(gate=gate_model(ALL_PASS), line=line_model())
    for _ in range(3):
        one.inspect()
    one.gate.swap(gate_model(NOTHING))
    one.inspect()
    again = PeriodLedger(edge="edge-1", line="cells", hour_s=3600)
    again.restore(one.ledger.snapshot())
    for ledger in (one.ledger, again):
        ((period, records),) = ledger.due(START + timedelta(hours=2), epoch=EPOCH)
        (record,) = [decode(Aggregate, r.encode()) for r in records]
        assert (record.cascade.n_pass, record.cascade.n_escalated, record.cascade.n_reject) == (3, 1, 0)
        assert sum(cell.n for cell in record.cells) == 4
        ledger.closed(period)
        assert ledger.due(START + timedelta(hours=3), epoch=EPOCH) == []


def test_an_audit_that_comes_after_its_hour_counts_in_the_next() -> None:
    ledger = PeriodLedger(edge="edge-1", line="cells", hour_s=3600)
    ledger.cascade(START).ended(Verdict.PASS)
    ((period, _),) = ledger.due(START + timedelta(hours=2), epoch=EPOCH)
    ledger.closed(period)
    ledger.cascade(START).n_audits_lost += 1
    ((later, records),) = ledger.due(START + timedelta(hours=3), epoch=EPOCH)
    assert later == period + 1
    assert (records[0].number, records[0].cells, records[0].cascade.n_audits_lost) == (2, [], 1)


def test_stopping_counts_the_audits_that_were_not_made(box: Make) -> None:
    slow = line_model()
    waiting = Waiting(slow.base)
    one = box(gate=gate_model(ALL_PASS), line=replace(slow, base=waiting), audit_share=1.0)
    one.inspect()
    assert waiting.asked.wait(20)
    one.inspect()
    threading.Timer(0.05, waiting.go.set).start()
    one.cascade.stop(20)
    total = one.cascade.total()
    assert (total.n_audited, total.n_audits_lost) == (1, 1)
