"""The spool's promises one by one: full, failing, damaged, killed, and read while written."""

from __future__ import annotations

import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.spool import Accepted, Limits, NotAccepted, Spool, SpoolBusy
from edge_agent.spool.index import NewerIndex
from edge_agent.spool.recovery import RESERVE
from edge_agent.spool.thinning import P_MAX, P_MIN
from models.contracts.base import decode
from models.contracts.uplink import Loss, LossReason, Priority
from simulators.disk import SimulatedDisk
from tests.edge_agent.spool.envelopes import EDGE, Clock, builder

WEIGHTS = {Priority.HARD: 2, Priority.AUDIT: 1}
HUGE = Limits(max_bytes=1 << 30, ballast_bytes=0, min_free_bytes=0)


class Box:
    def __init__(self, folder: Path, limits: Limits = HUGE) -> None:
        self.folder, self.limits = folder, limits
        self.disk = SimulatedDisk(rng=random.Random(3))
        self.clock, self.rng = Clock(), random.Random(4)
        self.declared: dict[tuple[str, int], str] = {}
        self.open()

    def open(self) -> Spool:
        self.spool = Spool(
            self.folder, edge=EDGE, fs=self.disk, now=self.clock.now, mono=self.clock.mono, rng=self.rng,
            limits=self.limits,
        )  # fmt: skip
        return self.spool

    def reopen(self) -> Spool:
        self.spool.close()
        return self.open()

    def put(self, size: int = 1000, prio: Priority = Priority.HARD, **meta) -> Accepted | NotAccepted:
        image = self.rng.randbytes(size)
        return self.spool.put(builder(image, self.rng, **meta), image, prio)

    def losses(self) -> dict[tuple[str, int], str]:
        """Everything declared so far, receipts given."""
        while records := self.spool.records_due(16):
            for record in records:
                loss = decode(Loss, record.payload, limit=32 << 10)
                for part in loss.ranges:
                    self.declared |= {(loss.epoch, n): part.reason for n in range(part.first, part.last + 1)}
                assert self.spool.record_acked(record.id)
        return self.declared

    def pending(self) -> set[int]:
        books = self.spool.account()
        return {n for first, last in books.ranges for n in range(first, last + 1)}

    def tiles(self, stored: set[int] = frozenset()) -> None:
        lost = {n for epoch, n in self.losses() if epoch == self.spool.epoch}
        top = self.spool.account().max_seq
        assert self.pending() | lost | stored == set(range(1, top + 1))
        assert not self.pending() & lost


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path / "spool")
    yield box
    box.spool.close()


def test_a_sample_comes_back_as_it_went_in(box: Box) -> None:
    image = b"the image"
    answer = box.spool.put(builder(image, box.rng), image, Priority.AUDIT)
    assert isinstance(answer, Accepted)
    box.reopen()
    [sample] = box.spool.next_batch(5, weights=WEIGHTS)
    assert (sample.sid, sample.epoch, sample.seq, sample.prio) == (answer.sid, answer.epoch, 1, Priority.AUDIT)
    assert (sample.size, sample.pi_survive) == (9, 1.0)
    assert box.spool.image(sample.sid) == image
    assert box.spool.next_batch(5, weights=WEIGHTS) == []
    box.spool.release(sample.sid)
    assert [s.sid for s in box.spool.next_batch(5, weights=WEIGHTS)] == [sample.sid]


def test_only_the_clouds_word_deletes_and_only_once(box: Box) -> None:
    answer = box.put()
    path = next((box.folder / "blobs").glob("*/*.smp"))
    assert not box.spool.acked(answer.sid, "f" * 16)
    assert path.exists()
    assert box.spool.acked(answer.sid, answer.epoch)
    assert not path.exists()
    assert not box.spool.acked(answer.sid, answer.epoch)
    assert box.pending() == set()
    box.tiles(stored={1})


def test_refused_is_kept_aside_and_declared(box: Box) -> None:
    answer = box.put()
    assert box.spool.refused(answer.sid, answer.epoch, "digest")
    assert box.losses() == {(answer.epoch, 1): "refused"}
    assert [p.stem for p in (box.folder / "quarantine").iterdir()] == [answer.sid]


# -- a full spool ------------------------------------------------------------------------------------------------------

SMALL = Limits(max_bytes=100_000, ballast_bytes=0, min_free_bytes=0)


def test_debug_goes_first_and_flagged_stays(tmp_path: Path) -> None:
    box = Box(tmp_path, SMALL)
    flagged = [box.put(4000, Priority.FLAGGED).sid for _ in range(5)]
    debug = {box.put(4000, Priority.DEBUG).seq for _ in range(5)}
    for _ in range(100):
        assert isinstance(box.put(4000), Accepted)
    declared = box.losses()
    assert {n for _, n in declared} >= debug
    assert {declared[box.spool.epoch, n] for n in debug} == {"evicted"}
    assert all(box.spool.image(sid) is not None for sid in flagged)
    assert box.spool.account().pending_bytes <= SMALL.max_bytes
    box.tiles()
    box.spool.close()


def test_survivors_carry_their_probability_and_the_coin_is_fair(tmp_path: Path) -> None:
    """Horvitz-Thompson: the sum of 1/pi over what is left estimates how many there were."""
    estimates = []
    for seed in range(6):
        box = Box(tmp_path / str(seed), SMALL)
        box.rng = random.Random(seed)
        box.reopen()
        for i in range(300):
            assert isinstance(box.put(1500, [Priority.HARD, Priority.AUDIT][i % 2], u=(i % 10) / 10), Accepted)
        left = box.spool.next_batch(1000, weights=WEIGHTS)
        assert all(0 < sample.pi_survive <= 1 for sample in left)
        assert {sample.pi_survive for sample in left} - {1.0}
        estimates.append(sum(1 / sample.pi_survive for sample in left))
        assert set(box.losses().values()) == {"thinned"}
        box.spool.close()
    assert 220 < sum(estimates) / len(estimates) < 400


def test_value_changes_the_probability_never_to_0_or_1(tmp_path: Path) -> None:
    box = Box(tmp_path, SMALL)
    for i in range(44):
        box.put(2000, u=0.9 if i % 2 else 0.05, predicted="crack" if i % 2 else "good")
    box.put(2000)
    left = box.spool.next_batch(100, weights=WEIGHTS)
    thinned = [sample for sample in left if sample.pi_survive < 1]
    by_class = {s.meta["decision"]["predicted"]: s.pi_survive for s in thinned}
    assert by_class["crack"] > by_class["good"]
    assert all(P_MIN <= p <= P_MAX for p in by_class.values())
    box.spool.close()


def test_a_sample_in_the_uplinks_hands_is_never_thinned(tmp_path: Path) -> None:
    box = Box(tmp_path, SMALL)
    for _ in range(10):
        box.put(2000)
    held = [sample.sid for sample in box.spool.next_batch(10, weights=WEIGHTS)]
    for _ in range(200):
        box.put(2000)
    assert all(box.spool.image(sid) is not None for sid in held)
    box.spool.close()


def test_flagged_goes_only_when_nothing_else_is_left(tmp_path: Path) -> None:
    box = Box(tmp_path, SMALL)
    for _ in range(60):
        assert isinstance(box.put(4000, Priority.FLAGGED), Accepted)
    assert set(box.losses().values()) == {"evicted"}
    assert box.spool.health == "full"
    box.tiles()
    box.spool.close()


def test_a_sample_that_can_never_fit_is_declared(tmp_path: Path) -> None:
    box = Box(tmp_path, SMALL)
    answer = box.put(200_000)
    assert (answer.reason, answer.seq) == (LossReason.EVICTED, 1)
    box.tiles()
    box.spool.close()


def test_a_full_disk_thins_too(tmp_path: Path) -> None:
    box = Box(tmp_path, Limits(max_bytes=1 << 30, ballast_bytes=0, min_free_bytes=50_000))
    box.disk.capacity = 200_000
    for _ in range(200):
        assert isinstance(box.put(2000), Accepted)
    assert box.disk.free_bytes(box.folder) >= 40_000
    box.tiles()
    box.spool.close()


def test_the_ballast_is_made_and_given_up(tmp_path: Path) -> None:
    box = Box(tmp_path, Limits(max_bytes=1 << 20, ballast_bytes=1 << 16, min_free_bytes=0))
    ballast = tmp_path / "ballast"
    assert ballast.stat().st_size == 1 << 16
    pages = box.spool._index.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    box.spool._index.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    answers = [box.put(10) for _ in range(400)]
    assert not ballast.exists()
    assert any(isinstance(answer, NotAccepted) for answer in answers)
    assert box.spool.health == "degraded"
    box.spool._index.read(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    assert isinstance(box.put(10), Accepted)
    assert box.spool.health == "ok"
    box.tiles()
    box.clock.seconds += 1000
    box.spool.tend()
    assert ballast.exists()
    box.spool.close()


# -- a failing disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["write_new", "rename", "sync_folder"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_a_failing_call_means_not_accepted_declared_and_go_on(box: Box, op, code: int) -> None:
    box.put()
    box.disk.fail(op, code, match="blobs" if op == "sync_folder" else "tmp")
    answer = box.put()
    assert (answer.reason, answer.seq) == (LossReason.IO_ERROR, 2)
    assert box.spool.health == "degraded"
    assert isinstance(box.put(), Accepted)
    assert box.spool.health == "ok"
    assert box.losses() == {(box.spool.epoch, 2): "io_error"}
    box.reopen()
    box.tiles()
    assert box.pending() == {1, 3}


def test_a_failed_sync_is_never_tried_again(box: Box) -> None:
    box.disk.fail("write_new", match="tmp")
    box.disk.calls.clear()
    box.put()
    own = str(box.folder / "tmp")
    assert [op for op, path in box.disk.calls if path.startswith(own)] == ["write_new", "unlink"]


def test_a_read_only_disk_costs_samples_and_nothing_else(box: Box) -> None:
    for op in ("write_new", "rename", "unlink", "sync_folder"):
        box.disk.fail(op, errno.EROFS, times=10**9)
    assert all(isinstance(box.put(), NotAccepted) for _ in range(20))
    box.disk.heal()
    assert box.spool.account().lost == {"io_error": 20}
    box.reopen()
    box.tiles()


def test_a_builder_that_fails_is_the_callers_fault_and_declared(box: Box) -> None:
    def build(epoch: str, seq: int):
        raise KeyError("line")

    with pytest.raises(KeyError):
        box.spool.put(build, b"x", Priority.HARD)
    with pytest.raises(ValueError, match="another image"):
        box.spool.put(builder(b"y", box.rng), b"x", Priority.HARD)
    with pytest.raises(ValueError, match="must carry edge"):
        box.spool.put(builder(b"x", box.rng, edge="edge-2"), b"x", Priority.HARD)
    assert len(box.losses()) == 3


def test_a_sid_twice_does_not_harm_the_first(box: Box) -> None:
    first = box.put()
    image = b"other"

    def build(epoch: str, seq: int):
        return builder(image, box.rng)(epoch, seq).model_copy(update={"sid": first.sid})

    with pytest.raises(ValueError, match="already"):
        box.spool.put(build, image, Priority.HARD)
    assert len(box.spool.image(first.sid)) == 1000
    box.tiles()


@pytest.mark.parametrize("size", [0, (32 << 20) + 1])
def test_an_image_the_wire_cannot_carry_is_refused(box: Box, size: int) -> None:
    image = bytes(size)
    build = builder(image, box.rng)
    if size:
        assert box.spool.put(build, image, Priority.HARD).reason is LossReason.REFUSED
    else:
        with pytest.raises(ValueError, match="greater than or equal to 1"):
            box.spool.put(build, image, Priority.HARD)
    assert len(box.losses()) == 1


# -- a damaged index ---------------------------------------------------------------------------------------------------


def damage(folder: Path, how: str) -> None:
    path = folder / "index.db"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    data = bytearray(path.read_bytes())
    match how:
        case "garbage":
            path.write_bytes(b"not a database, sorry" * 100)
        case "truncated":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()


@pytest.mark.parametrize("how", ["garbage", "truncated", "empty", "gone"])
def test_a_damaged_index_is_rebuilt_under_a_new_epoch(box: Box, how: str) -> None:
    answers = [box.put() for _ in range(6)]
    old = box.spool.epoch
    box.spool.acked(answers[0].sid, old)
    box.spool.refused(answers[1].sid, old, "x")
    box.spool.close()
    damage(box.folder, how)
    box.open()
    assert box.spool.rebuilt
    assert box.spool.epoch != old
    kept = {sample.seq: sample for sample in box.spool.next_batch(10, weights=WEIGHTS)}
    assert set(kept) == {3, 4, 5, 6}
    assert {sample.epoch for sample in kept.values()} == {old}
    declared = box.losses()
    assert {n for epoch, n in declared if epoch == old} == {1, 2, *range(7, RESERVE + 1)}
    assert set(declared.values()) == {"accounting_ended"}
    assert box.put().seq == 1
    assert box.spool.acked(kept[3].sid, old)
    box.reopen()
    assert not box.spool.rebuilt


def test_survival_probabilities_outlive_the_index(tmp_path: Path) -> None:
    box = Box(tmp_path, SMALL)
    for _ in range(100):
        box.put(2000)
    before = {sample.sid: sample.pi_survive for sample in box.spool.next_batch(1000, weights=WEIGHTS)}
    assert min(before.values()) < 1
    box.spool.close()
    damage(tmp_path, "garbage")
    box.open()
    after = {sample.sid: sample.pi_survive for sample in box.spool.next_batch(1000, weights=WEIGHTS)}
    assert after == before
    box.spool.close()


def test_a_second_damage_within_an_hour_starts_empty(box: Box) -> None:
    for _ in range(2):
        box.put()
        box.spool.close()
        damage(box.folder, "garbage")
        box.clock.seconds += 60
        box.open()
    assert box.pending() == set()
    assert box.spool.next_batch(5, weights=WEIGHTS) == []
    assert len(list((box.folder / "quarantine").glob("*.smp"))) == 2
    assert isinstance(box.put(), Accepted)


@pytest.mark.parametrize("content", [b"", b"{", b'{"epoch":"zz","bound":1}', b'{"epoch":5}', b"\xff\xfe"])
def test_a_damaged_epoch_file_is_rewritten_from_the_index(box: Box, content: bytes) -> None:
    box.put()
    epoch = box.spool.epoch
    box.spool.close()
    (box.folder / "epoch").write_bytes(content)
    box.open()
    assert box.spool.epoch == epoch
    assert box.put().seq == 2


def test_an_index_of_a_newer_program_is_left_alone(box: Box) -> None:
    box.spool.close()
    with sqlite3.connect(box.folder / "index.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(NewerIndex, match="update the agent"):
        box.open()


@pytest.mark.parametrize("seed", range(60))
def test_random_bit_flips_never_bring_a_wrong_image(tmp_path: Path, seed: int) -> None:
    box = Box(tmp_path)
    images = {}
    for _ in range(3):
        image = box.rng.randbytes(500)
        images[box.spool.put(builder(image, box.rng), image, Priority.HARD).sid] = image
    box.spool.close()
    rng = random.Random(seed)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    for _ in range(3):
        path = rng.choice(files)
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    box.open()
    for sample in box.spool.next_batch(10, weights=WEIGHTS):
        assert box.spool.image(sample.sid) == images[sample.sid]
    assert isinstance(box.put(), Accepted)
    box.spool.close()


def test_a_blob_without_a_row_is_adopted(box: Box) -> None:
    answer = box.put()
    path = next((box.folder / "blobs").glob("*/*.smp"))
    data = path.read_bytes()
    box.spool.acked(answer.sid, answer.epoch)
    box.spool._index.write(lambda db: db.execute("DELETE FROM samples"))
    path.write_bytes(data)
    box.reopen()
    assert [sample.seq for sample in box.spool.next_batch(5, weights=WEIGHTS)] == [1]


# -- records, purge, owners, threads -----------------------------------------------------------------------------------


def test_final_rows_go_after_a_week_and_numbers_never_come_back(box: Box) -> None:
    answers = [box.put() for _ in range(3)]
    for answer in answers:
        box.spool.acked(answer.sid, answer.epoch)
    box.clock.seconds += 8 * 86_400
    box.spool.tend()
    rows = box.spool._index.read(lambda db: db.execute("SELECT seq FROM samples").fetchall())
    assert rows == [(3,)]
    box.reopen()
    assert box.put().seq == 4


def test_declarations_stay_small_and_complete(box: Box) -> None:
    answers = [box.put(10) for _ in range(600)]
    for answer in answers[::2]:
        box.spool.refused(answer.sid, answer.epoch, "a rather long code " * 20)
    assert len(box.losses()) == 300
    assert not box.spool.account().complete
    assert len(box.spool.account().ranges) == 64


def test_a_second_process_is_refused_within_a_second(box: Box) -> None:
    code = (
        "import random, sys; from pathlib import Path; from datetime import datetime, UTC\n"
        "from edge_agent.spool import Spool, SpoolBusy\n"
        "try:\n"
        "    Spool(Path(sys.argv[1]), edge='edge-1', now=lambda: datetime.now(UTC), mono=float, rng=random.Random())\n"
        "except SpoolBusy as fault:\n"
        "    print(fault)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(box.folder)], capture_output=True, text=True, timeout=30, check=True
    )
    assert "another process owns the spool" in answer.stdout
    with pytest.raises(SpoolBusy):
        Spool(box.folder, edge=EDGE, now=box.clock.now, mono=box.clock.mono, rng=box.rng)


def test_cameras_put_while_the_uplink_reads(box: Box) -> None:
    faults: list[BaseException] = []
    stored: set[int] = set()

    def guard(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as fault:  # noqa: BLE001 - handed to the test's own thread
                faults.append(fault)

        return threading.Thread(target=run)

    def camera(seed: int) -> Callable[[], None]:
        def work() -> None:
            rng = random.Random(seed)
            for _ in range(40):
                image = rng.randbytes(300)
                assert isinstance(box.spool.put(builder(image, rng), image, Priority.HARD), Accepted)

        return work

    def uplink() -> None:
        deadline = time.monotonic() + 30
        while len(stored) < 160 and time.monotonic() < deadline:
            for sample in box.spool.next_batch(8, weights=WEIGHTS):
                assert box.spool.image(sample.sid) is not None
                assert box.spool.acked(sample.sid, sample.epoch)
                stored.add(sample.seq)

    threads = [guard(camera(seed)) for seed in range(4)] + [guard(uplink)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert faults == []
    assert stored == set(range(1, 161))


# -- SIGKILL on the real disk ------------------------------------------------------------------------------------------

WRITER = """
import random, sys
from datetime import UTC, datetime
from pathlib import Path
from edge_agent.spool import Accepted, Limits, Spool
from models.contracts.uplink import Priority
from tests.edge_agent.spool.envelopes import builder

rng = random.Random(int(sys.argv[2]))
spool = Spool(Path(sys.argv[1]), edge="edge-1", now=lambda: datetime.now(UTC), mono=lambda: 0.0, rng=rng,
              limits=Limits(max_bytes=1 << 30, ballast_bytes=0, min_free_bytes=0))
print("open", flush=True)
while True:
    image = rng.randbytes(20_000)
    answer = spool.put(builder(image, rng), image, Priority.HARD)
    if isinstance(answer, Accepted):
        print(answer.sid, flush=True)
    for sample in spool.next_batch(1, weights={}) if rng.random() < 0.3 else []:
        print("-" + sample.sid, flush=True)
        spool.acked(sample.sid, sample.epoch)
"""


def test_sigkill_at_any_moment_loses_nothing_accepted(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("real-disk") / "spool"
    accepted: set[str] = set()
    rng = random.Random(5)
    for cycle in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(cycle)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        time.sleep(rng.uniform(0.01, 0.15))
        os.kill(writer.pid, signal.SIGKILL)
        for line in writer.stdout.read().split():
            (accepted.discard if line.startswith("-") else accepted.add)(line.lstrip("-"))
        writer.stdout.close()
        writer.wait(10)
    clock = Clock()
    with Spool(folder, edge=EDGE, now=clock.now, mono=clock.mono, rng=rng, limits=HUGE) as spool:
        assert len(accepted) > 20
        assert all(spool.image(sid) is not None for sid in accepted)
        books = spool.account()
        assert books.lost.get("corrupt", 0) == 0
        states = spool._index.read(lambda db: db.execute("SELECT seq FROM samples ORDER BY seq").fetchall())
        assert [row[0] for row in states] == list(range(1, books.max_seq + 1))
