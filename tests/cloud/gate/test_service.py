"""The gate on real ONNX files: toy models that average colours, so right and wrong can be written down by hand."""

from __future__ import annotations

import base64
import itertools
from pathlib import Path
from typing import Any

import pytest

from cloud.db.tables import Candidate, Release
from cloud.gate.endorse import WrongProposal, check_proposal
from cloud.gate.metrics import UnknownMetric
from cloud.gate.report import metric
from cloud.gate.service import GateService
from cloud.gate.settings import GateSettings
from cloud.jobs.worker import Worker
from cloud.lines.schemas import NewClass, ReferenceItem
from cloud.objects import StoreUnavailable
from tests.cloud.registry.world import LINE, Toy, World, image, proposal, toy_base

GOOD, BAD = (60, 200, 60), (200, 60, 60)
GOOD_POLY, BAD_POLY = (200, 120, 200), (200, 60, 60)
RIGHT = {"good": (0.0, 1.0, 0.0), "scratch": (1.0, 0.0, 0.0)}
"""Red is a scratch, green is good: right on mono, right on poly only with the blue row below."""
LEARNED = {"good": (0.0, 1.5, 1.5), "scratch": (1.0, 0.0, 0.0)}
BLIND = {"good": (0.0, 0.0, 0.0), "scratch": (0.0, 0.0, 0.0)}
ALL_PASS = (3.0, 0.0)
PARITY = {"parity": 0.001}


class Gate(World):
    """A line with a gate set, a base, and a gate whose second signature is written down instead of made."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.signed: list[int] = []
        self.add_line(classes=[NewClass(name="good", defect=False), NewClass(name="scratch", defect=True)])
        manifest, paths = toy_base(self.folder)
        self.base = self.registry.add_base(manifest, paths, b"checkpoint")
        self.gate = self.make()
        self.seeds = itertools.count()

    def make(self, **limits: Any) -> GateService:
        return GateService(
            begin=self.begin, reads=self.reads, now=self.clock, lines=self.lines, registry=self.registry,
            jobs=self.jobs, blobs=self.blobs, repository=self, key="gate-key",
            settings=GateSettings(bootstrap=200, latency_p95_ms=60_000, **limits),
        )  # fmt: skip

    def endorse_adapter(self, line: str, proposal: bytes, gate: Any) -> int:
        assert gate == "gate-key"
        self.signed.append(len(proposal))
        return len(self.signed)

    def images(self, colour: tuple[int, int, int], label: str, n: int, domain: str, **fields: Any) -> None:
        items = [ReferenceItem(image(colour, next(self.seeds)), label, domain=domain, **fields) for _ in range(n)]
        self.lines.add_references(LINE, "gate", items)

    def mono(self) -> None:
        self.images(GOOD, "good", 30, "mono")
        self.images(BAD, "scratch", 30, "mono")

    def poly(self) -> None:
        self.images(GOOD_POLY, "good", 30, "poly")
        self.images(BAD_POLY, "scratch", 30, "poly")

    def candidate(self, toy: Toy, metrics: dict[str, Any] | None = None) -> int:
        adapter, blobs = toy.make(self.base)
        listed = {c.release: c.manifest_sha for c in self.known() if c.state in ("accepted", "published")}
        signed = proposal(LINE, {**listed, toy.release: adapter.digest()})
        return self.registry.add_candidate(
            adapter, blobs, base_sha=self.base, metrics=PARITY if metrics is None else metrics, proposal=signed
        )

    def known(self) -> list[Candidate]:
        with self.reads() as session:
            return session.query(Candidate).order_by(Candidate.release).all()

    def judge(self, toy: Toy, metrics: dict[str, Any] | None = None) -> Candidate:
        """Run the gate's job to its end and, if it was accepted, let the line run it."""
        id = self.candidate(toy, metrics)
        with self.begin() as session:
            self.jobs.enqueue(session, "gate", f"gate/{LINE}/{toy.release}", {"candidate": id})
        assert Worker(jobs=self.jobs, handlers={"gate": self.gate.handle}, owner="g").run_one()
        found = self.registry.candidate(id)
        if found.state == "accepted":
            self.run(found)
        return found

    def run(self, candidate: Candidate) -> None:
        with self.begin() as session:
            self.registry.publish(session, LINE, candidate.release)
            session.add(
                Release(
                    line=LINE, number=candidate.release, adapter_release=candidate.release, adapter_sha="0" * 64,
                    state="complete", wave_opened_at=0, manifest={}, actor="t", created_at=0,
                )
            )  # fmt: skip


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    made = Gate(tmp_path)
    made.mono()
    return made


def broken(found: Candidate) -> set[str]:
    return {finding["rule"] for finding in found.report["findings"] if not finding["passed"]}


def test_a_first_release_is_judged_absolutely_endorsed_and_asked_for(gate: Gate) -> None:
    found = gate.judge(Toy(1, RIGHT))
    assert found.state == "accepted", found.report["summary"]
    assert gate.signed
    assert gate.jobs.by_key(f"release/{LINE}/1") is not None
    rules = {finding["rule"] for finding in found.report["findings"]}
    assert "better_than_chance" in rules
    assert not rules & {"macro_f1", "recall"}
    assert metric(found.report, "accuracy") == 1.0
    with pytest.raises(UnknownMetric, match="accurancy"):
        metric(found.report, "accurancy")


def test_a_first_release_no_better_than_chance_is_refused(gate: Gate) -> None:
    found = gate.judge(Toy(1, BLIND, bias=ALL_PASS))
    assert found.state == "refused"
    assert "better_than_chance" in broken(found)
    assert not gate.signed
    assert gate.jobs.by_key(f"release/{LINE}/1") is None


def test_known_bad_is_refused_in_rounds_two_and_three_and_good_still_passes(gate: Gate) -> None:
    assert gate.judge(Toy(1, RIGHT)).state == "accepted"
    second = gate.judge(Toy(2, BLIND, bias=ALL_PASS))
    assert second.state == "refused"
    assert {"macro_f1", "recall"} <= broken(second)
    assert "scratch" in second.report["summary"]
    gate.poly()
    third = gate.judge(Toy(3, LEARNED))
    assert third.state == "accepted", third.report["summary"]
    fourth = gate.judge(Toy(4, RIGHT))  # back to what forgets poly: worse than release 3, equal to release 1
    assert fourth.state == "refused"
    assert third.report["incumbent"]["release"] == 1
    assert fourth.report["incumbent"]["release"] == 3


def test_ending_a_collapse_is_no_forgetting(gate: Gate) -> None:
    """The incumbent calls all of poly a scratch: perfect recall there, and no use. Its end may cost some recall."""
    assert gate.judge(Toy(1, RIGHT)).state == "accepted"
    gate.poly()
    gate.images((200, 125, 210), "scratch", 6, "poly")  # looks like a good one: only the collapsed model "finds" it
    found = gate.judge(Toy(2, LEARNED))
    slices = {(s["slice"], s["class"]): s for s in _numbers(found, "recall")["slices"]}
    assert slices["poly", "scratch"]["evident"]
    assert not slices["poly", "scratch"]["refused"]
    assert "operating point" in str(found.report["findings"])
    assert "recall" not in broken(found)


def test_forgetting_one_domain_is_refused_though_the_whole_improves(gate: Gate) -> None:
    assert gate.judge(Toy(1, RIGHT)).state == "accepted"
    gate.images(GOOD_POLY, "good", 200, "poly")
    gate.images((60, 60, 60), "scratch", 20, "mono")  # dark scratches, which release 1 cannot tell apart
    found = gate.judge(Toy(2, {"good": (0.0, 1.0, 4.0), "scratch": (0.0, 0.0, 0.0)}))
    assert found.state == "refused"
    refused = [s for s in _numbers(found, "recall")["slices"] if s["refused"]]
    assert {s["slice"] for s in refused} == {"mono"}


def _numbers(found: Candidate, rule: str) -> dict[str, Any]:
    numbers: dict[str, Any] = next(f["numbers"] for f in found.report["findings"] if f["rule"] == rule)
    return numbers


def test_a_newly_missed_must_catch_part_is_refused_with_its_digest(gate: Gate) -> None:
    gate.images((150, 120, 60), "scratch", 1, "mono", must_catch=True)
    assert gate.judge(Toy(1, RIGHT)).state == "accepted"
    found = gate.judge(Toy(2, RIGHT, bias=(8.0, 0.0)))
    assert "must_catch" in broken(found)
    assert _numbers(found, "must_catch")["new"] == 1


@pytest.mark.parametrize("metrics", [{}, {"parity": float("nan")}, {"parity": "good"}, {"parity": 0.5}])
def test_agreement_not_measured_is_not_agreed(gate: Gate, metrics: dict[str, Any]) -> None:
    report = gate.gate.evaluate(_row(gate, Toy(1, RIGHT), metrics))
    assert {f["rule"] for f in report["findings"] if not f["passed"]} == {"parity"}


def _row(gate: Gate, toy: Toy, metrics: dict[str, Any]) -> Candidate:
    adapter, _ = toy.make(gate.base)
    gate.candidate(toy, {})
    row = gate.registry.by_release(LINE, toy.release)
    row.metrics = metrics
    assert row.manifest_sha == adapter.digest()
    return row


def test_an_adapter_that_does_nothing_is_refused(gate: Gate) -> None:
    found = gate.judge(Toy(1, RIGHT, push=((0.0, 0.0, 0.0), (0.1, 0.1, 0.1))))
    assert broken(found) == {"different"}


def test_the_same_model_again_is_not_worth_sending(gate: Gate) -> None:
    gate.judge(Toy(1, RIGHT))
    found = gate.judge(Toy(2, RIGHT))
    assert broken(found) == {"different"}


def test_budgets(gate: Gate) -> None:
    gate.gate = gate.make(release_bytes=100)
    assert broken(gate.judge(Toy(1, RIGHT))) == {"size"}


def test_overconfident_is_refused(gate: Gate) -> None:
    gate.images(BAD, "good", 12, "mono")  # confidently wrong
    gate.images(GOOD, "scratch", 12, "mono")
    assert "calibration" in broken(gate.judge(Toy(1, RIGHT)))


def test_files_a_box_would_refuse_are_refused_in_words(gate: Gate) -> None:
    found = gate.judge(Toy(1, RIGHT, nan=True))
    assert found.state == "refused"
    assert "NaN" in found.report["summary"]


def test_a_small_gate_set_judges_nothing(tmp_path: Path) -> None:
    small = Gate(tmp_path)
    small.images(GOOD, "good", 30, "mono")
    found = small.judge(Toy(1, RIGHT))
    assert broken(found) == {"gate_set"}
    assert "import more" in found.report["summary"]


def test_an_empty_gate_set_judges_nothing(tmp_path: Path) -> None:
    assert broken(Gate(tmp_path).judge(Toy(1, RIGHT))) == {"gate_set"}


def test_images_of_a_coming_product_count_from_their_moment(gate: Gate) -> None:
    later = gate.clock() + 10_000_000
    items = [ReferenceItem(image(GOOD_POLY, 1000 + i), "good", domain="poly") for i in range(40)]
    gate.lines.add_references(LINE, "gate", items, active_from=later)
    assert gate.judge(Toy(1, RIGHT)).report["gate_set"]["n"] == 60
    gate.clock.forward(10)
    assert gate.judge(Toy(2, LEARNED)).report["gate_set"]["n"] == 100


def test_a_crash_after_the_decision_is_finished_by_the_next_run(gate: Gate) -> None:
    id = gate.candidate(Toy(1, RIGHT))
    report = gate.gate.evaluate(gate.registry.candidate(id))
    gate.registry.decide(id, report["accepted"], report)
    with gate.begin() as session:
        gate.jobs.enqueue(session, "gate", f"gate/{LINE}/1", {"candidate": id})
    Worker(jobs=gate.jobs, handlers={"gate": gate.gate.handle}, owner="g").run_one()
    assert gate.signed
    assert gate.jobs.by_key(f"release/{LINE}/1") is not None


def test_the_gate_signs_only_what_it_judged(gate: Gate) -> None:
    adapter, blobs = Toy(1, RIGHT).make(gate.base)
    sneaked = proposal(LINE, {1: adapter.digest(), 2: "f" * 64})
    id = gate.registry.add_candidate(adapter, blobs, base_sha=gate.base, metrics=PARITY, proposal=sneaked)
    with gate.begin() as session:
        gate.jobs.enqueue(session, "gate", f"gate/{LINE}/1", {"candidate": id})
    Worker(jobs=gate.jobs, handlers={"gate": gate.gate.handle}, owner="g").run_one()
    assert not gate.signed
    job = gate.jobs.by_key(f"gate/{LINE}/1")
    assert job is not None
    assert job.state == "failed"
    assert "did not accept" in (job.error or "")


@pytest.mark.parametrize("bad", [b"", b"[]", b'{"signed": {}}', b"\xff", proposal(LINE, {})])
def test_a_proposal_that_is_none_is_refused(bad: bytes) -> None:
    with pytest.raises(WrongProposal):
        check_proposal(bad, LINE, {1: "0" * 64}, release=1)


def test_small_losses_do_not_add_up(gate: Gate) -> None:
    """Each release is within the margin of the one before; the gate remembers the best."""
    for red in (128, 134, 140, 146, 152, 158):  # fainter and fainter scratches, given up one shade after the other
        gate.images((red, 120, 60), "scratch", 4, "mono")
    gate.gate = gate.make(margin=0.06, recall_drop=1.0, calibration=1.0, erosion=0.1)
    found = [gate.judge(Toy(n, RIGHT, bias=(1.1 * n - 1.1, 0.0))) for n in range(1, 7)]
    assert [one.state for one in found[:3]] == ["accepted"] * 3
    refused = next(one for one in found if one.state == "refused")
    assert broken(refused) == {"erosion"}
    assert _numbers(refused, "erosion")["best_release"] in (1, 2)
    assert _numbers(refused, "macro_f1")["difference"] > -0.06


def test_a_renewal_is_signed_and_one_with_a_stranger_in_it_is_not(gate: Gate) -> None:
    found = gate.judge(Toy(1, RIGHT))
    fine, sneaked = proposal(LINE, {1: found.manifest_sha}), proposal(LINE, {1: found.manifest_sha, 2: "f" * 64})
    for name, data in (("a", fine), ("b", sneaked)):
        with gate.begin() as session:
            payload = {"line": LINE, "proposal": base64.b64encode(data).decode()}
            gate.jobs.enqueue(session, "renew", f"renew/{LINE}/{name}", payload)
        assert Worker(jobs=gate.jobs, handlers={"renew": gate.gate.renew}, owner="g").run_one()
    states = [job.state for job in reversed(gate.jobs.of_line(LINE)) if job.kind == "renew"]
    assert states == ["done", "failed"]
    assert len(gate.signed) == 2


class CountingBlobs:
    """The store, and what was read from it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.seen: list[str] = []

    def add(self, data: bytes) -> str:
        return self._inner.add(data)

    def path(self, sha: str) -> Path:
        return self._inner.path(sha)

    def read(self, sha: str) -> bytes:
        self.seen.append(sha)
        return self._inner.read(sha)


def test_todays_candidate_is_not_scored_again_as_tomorrows_incumbent(gate: Gate) -> None:
    gate.blobs = blobs = CountingBlobs(gate.blobs)
    gate.gate = gate.make()
    first = gate.judge(Toy(1, RIGHT))
    head = first.manifest["head"]["blob"]["sha256"]
    assert head in blobs.seen
    blobs.seen.clear()
    second = gate.judge(Toy(2, BLIND, bias=ALL_PASS))
    assert second.report["incumbent"]["release"] == 1
    assert head not in blobs.seen
    gate.poly()  # another gate set: what was known of the incumbent says nothing about it
    gate.judge(Toy(3, LEARNED))
    assert head in blobs.seen


def test_gate_images_of_a_coming_product_are_read_ahead_and_the_store_may_be_away(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.images(GOOD_POLY, "good", 4, "poly")
    read: list[str] = []
    kept = gate.blobs.read
    down = [False]

    def reading(sha: str) -> bytes:
        if down[0]:
            raise StoreUnavailable("away")
        read.append(sha)
        return kept(sha)

    monkeypatch.setattr(gate.blobs, "read", reading)
    late = ReferenceItem(image(BAD_POLY, next(gate.seeds)), "scratch", domain="poly")
    gate.lines.add_references(LINE, "gate", [late], active_from=gate.clock.us + 10**9)
    down[0] = True
    with pytest.raises(StoreUnavailable):
        list(gate.gate.ahead())
    down[0] = False
    assert len(list(gate.gate.ahead())) == 65
    assert len(list(gate.gate.ahead())) == 0
    gate.clock.forward(2000)
    before = len(read)
    gate.gate.evaluate(gate.registry.candidate(gate.candidate(Toy(1, RIGHT))))
    pictures = {one.sha256 for one in gate.lines.references(LINE, "gate")}
    again = [sha for sha in read[before:] if sha in pictures]
    assert len(again) <= 31, "only the latency is measured on images that were read already"
