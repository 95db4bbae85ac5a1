"""Whatever the moment of a power cut: an accepted sample is there unharmed, and every number is accounted for."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from edge_agent.spool import Accepted, Limits, Spool
from models.contracts.base import decode
from models.contracts.uplink import Loss, Priority
from simulators.disk import PowerCut, SimulatedDisk
from tests.edge_agent.spool.conftest import MEMORY
from tests.edge_agent.spool.envelopes import EDGE, Clock, builder

LIMITS = Limits(max_bytes=60_000, ballast_bytes=4096, min_free_bytes=0)
WEIGHTS = {Priority.HARD: 2, Priority.AUDIT: 1}


class SpoolUnderPowerCuts(RuleBasedStateMachine):
    """`accepted` and `stored` are what the world outside the box knows."""

    sync_files = sync_folders = True

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-", dir=MEMORY))
        self.rng = random.Random(1)
        self.disk = SimulatedDisk(rng=random.Random(2), sync_files=self.sync_files, sync_folders=self.sync_folders)
        self.clock = Clock()
        self.accepted: dict[str, tuple[str, int, bytes]] = {}
        self.stored: set[tuple[str, int]] = set()
        self.declared: set[tuple[str, int]] = set()
        self.top: dict[str, int] = {}
        self.spool: Spool | None = None
        self.open()

    def open(self) -> None:
        self.spool = Spool(
            self.folder, edge=EDGE, fs=self.disk, now=self.clock.now, mono=self.clock.mono, rng=self.rng, limits=LIMITS
        )

    def crash(self) -> None:
        assert self.spool is not None
        self.spool.close()
        self.spool = None
        self.disk.restart()

    def guarded(self, act) -> None:
        try:
            act()
        except PowerCut:
            self.crash()
            self.open()

    @rule(
        size=st.integers(1, 6000),
        prio=st.sampled_from([Priority.HARD, Priority.AUDIT, Priority.FLAGGED]),
        u=st.floats(0, 1),
    )
    def put(self, size: int, prio: Priority, u: float) -> None:
        image = self.rng.randbytes(size)

        def act() -> None:
            answer = self.spool.put(builder(image, self.rng, u=u), image, prio)
            if isinstance(answer, Accepted):
                self.accepted[answer.sid] = (answer.epoch, answer.seq, image)
            self.top[self.spool.epoch] = max(self.top.get(self.spool.epoch, 0), answer.seq)

        self.guarded(act)

    @rule(n=st.integers(1, 4), ack=st.booleans())
    def upload(self, n: int, ack: bool) -> None:
        def act() -> None:
            for sample in self.spool.next_batch(n, weights=WEIGHTS):
                if ack:
                    self.stored.add((sample.epoch, sample.seq))
                    self.spool.acked(sample.sid, sample.epoch)
                else:
                    self.spool.release(sample.sid)

        self.guarded(act)

    @rule()
    def refuse(self) -> None:
        def act() -> None:
            for sample in self.spool.next_batch(1, weights=WEIGHTS):
                self.accepted.pop(sample.sid, None)
                self.spool.refused(sample.sid, sample.epoch, "bad_image")

        self.guarded(act)

    @rule()
    def declare(self) -> None:
        def act() -> None:
            for record in self.spool.records_due(4):
                loss = decode(Loss, record.payload)
                for part in loss.ranges:
                    self.declared.update((loss.epoch, n) for n in range(part.first, part.last + 1))
                self.spool.record_acked(record.id)

        self.guarded(act)

    @rule(steps=st.integers(0, 14))
    def power_will_fail(self, steps: int) -> None:
        self.disk.cut_in(steps)

    @rule()
    def power_fails_now(self) -> None:
        self.crash()
        self.open()

    @precondition(lambda self: self.spool is not None)
    @rule()
    def restart_cleanly(self) -> None:
        self.disk.cut_in(None)
        self.spool.close()
        self.open()

    @invariant()
    def nothing_is_unaccounted(self) -> None:
        if self.spool is None:
            return
        account = self.spool.account()
        assert account.complete
        pending = {n for first, last in account.ranges for n in range(first, last + 1)}
        waiting = self.spool._index.read(  # tombstones count as declared before their record is made
            lambda db: {tuple(row) for row in db.execute("SELECT epoch, seq FROM samples WHERE state = 'lost'")}
        )
        lost = {n for epoch, n in self.declared | waiting if epoch == account.epoch}
        stored = {n for epoch, n in self.stored if epoch == account.epoch}
        assert pending | lost | stored >= set(range(1, account.max_seq + 1))
        assert not pending & lost
        assert account.max_seq >= self.top.get(account.epoch, 0), "a number was given out twice"
        if self.sync_files and self.sync_folders:
            assert account.lost.get("corrupt", 0) == 0

    @invariant()
    def accepted_samples_are_there(self) -> None:
        if self.spool is None:
            return
        lost = self.spool._index.read(
            lambda db: {
                tuple(row)
                for row in db.execute(
                    "SELECT epoch, seq FROM samples WHERE state = 'lost' AND reason IN ('thinned', 'evicted')"
                )
            }
        )
        for sid, (epoch, seq, image) in self.accepted.items():
            if (epoch, seq) not in self.stored and (epoch, seq) not in lost:
                assert self.spool.image(sid) == image

    def teardown(self) -> None:
        if self.spool is not None:
            self.spool.close()
        shutil.rmtree(self.folder, ignore_errors=True)


QUICK = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


GENERATE_ONLY = settings(QUICK, phases=[Phase.generate], report_multiple_bugs=False)


def test_no_power_cut_loses_an_accepted_sample() -> None:
    run_state_machine_as_test(SpoolUnderPowerCuts, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_power_cut_loses_an_accepted_sample_in_twenty_thousand_steps() -> None:
    run_state_machine_as_test(SpoolUnderPowerCuts, settings=settings(QUICK, max_examples=500, derandomize=False))


@pytest.mark.parametrize("forgotten", ["sync_files", "sync_folders"])
def test_the_law_notices_a_forgotten_fsync(forgotten: str) -> None:
    careless = type("Careless", (SpoolUnderPowerCuts,), {forgotten: False})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(careless, settings=GENERATE_ONLY)
