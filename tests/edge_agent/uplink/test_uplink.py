"""Every sample arrives once, whatever happens to the messages; and leaves the spool only on the cloud's word."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.uplink import UplinkSettings
from models.contracts import topics
from models.contracts.base import decode
from models.contracts.control import Announce, CheckUpdate, Command
from models.contracts.telemetry import Aggregate, Presence
from models.contracts.uplink import AckItem, Priority, Result
from tests.edge_agent.spool.envelopes import EDGE, START
from tests.edge_agent.uplink.world import World

SID = "019cad8f-ac00-7000-8000-00000000000a"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "spool")
    yield world
    world.close()


def test_samples_arrive_and_leave_the_spool(world: World) -> None:
    world.ingest.come()
    for size in (1, 1000, 122_880, 122_881, 300_000):
        world.put(size)
    world.run(5)
    assert world.ingest.stored == world.samples
    assert world.pending == 0
    assert world.uplink.stats().resent_bytes == 0


@pytest.mark.parametrize("seed", range(4))
def test_drop_duplicate_and_reorder_harm_nothing(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed=seed)
    world.ingest.come()
    world.run(1)
    world.broker.drop, world.broker.duplicate, world.broker.reorder = 0.2, 0.2, 0.3
    for i in range(30):
        world.put(1 + i * 9_000, Priority.AUDIT if i % 3 else Priority.FLAGGED)
        world.run(1)
    world.run(300)
    world.broker.drop = 0.0
    world.run(300)
    assert world.ingest.stored == world.samples
    assert world.pending == 0
    world.close()


def test_a_lost_receipt_is_answered_have(world: World) -> None:
    sid = world.put(1000)
    world.ingest.come()
    world.run(0.25)
    world.ingest.stored.clear()
    # The sample is stored, the receipt is lost on its way.
    other = world.put(2000)
    original = world.ingest.take

    def silent(payload: bytes) -> None:
        world.ingest.lose_acks = 1
        original(payload)

    world.ingest.take = silent
    world.run(1)
    assert other in world.ingest.stored
    assert world.pending == 1
    world.run(30)
    assert world.pending == 0
    assert len([d for d in world.ingest.data if d[0] == other]) == 1
    assert sid in world.samples


def test_a_puback_deletes_nothing(world: World) -> None:
    """The link takes every message, and nobody answers."""
    world.ingest.come()
    world.ingest.lose_acks = 10**9
    for _ in range(5):
        world.put(1000)
    world.run(60)
    assert world.pending == 5


def test_no_data_and_no_offers_while_ingest_is_offline(world: World) -> None:
    world.put(1000)
    world.run(30)
    world.ingest.come()
    world.ingest.tell(online=False)
    world.run(30)
    sent = {topic.rsplit("/", 1)[1] for user, topic, _ in world.broker.log if user == EDGE}
    assert sent == {"hb", "state"}
    world.ingest.come()
    world.run(5)
    assert world.pending == 0


def test_silence_is_met_with_few_probes_and_ends_with_the_first_answer(world: World) -> None:
    for _ in range(40):
        world.put(1000)
    world.ingest.come()
    world.ingest.lose_acks = 10**9
    world.run(3600, step=1.0)
    assert 5 < len(world.ingest.offers) < 60
    world.ingest.lose_acks = 0
    world.run(400, step=1.0)
    assert world.pending == 0


def test_credit_zero_means_no_data(world: World) -> None:
    world.ingest.come()
    world.ingest.credit = 0
    for _ in range(3):
        world.put(5000)
    world.run(120)
    assert world.ingest.data == []
    assert len(world.ingest.offers) < 60, "asking for credit must not become a flood"
    world.ingest.credit = 1 << 20
    world.run(90)
    assert world.pending == 0


def test_credit_bounds_what_is_on_the_way(world: World) -> None:
    world.ingest.come()
    world.ingest.credit = 130_000
    world.put(600_000)
    world.run(0.25)
    assert world.ingest.data_bytes <= 130_000
    world.run(300)
    assert world.pending == 0


def test_later_waits_and_then_tries_again(world: World) -> None:
    world.ingest.come()
    world.ingest.answer_all = Result.LATER
    world.put(1000)
    world.run(50)
    assert len(world.ingest.offers) == 1
    world.ingest.answer_all = None
    world.run(20)
    assert world.pending == 0


def test_no_means_quarantine_and_a_declared_loss(world: World) -> None:
    world.ingest.come()
    bad, good = world.put(1000), world.put(1000)
    world.ingest.answer[bad] = AckItem(sid=bad, result=Result.NO, code="image_bomb")
    world.run(10)
    assert set(world.ingest.stored) == {good}
    assert world.ingest.lost == {(world.spool.epoch, 1)}
    assert [p.stem for p in (world.folder / "quarantine").glob("*.smp")] == [bad]
    assert world.spool.account().lost == {"refused": 1}


def test_an_answer_for_another_edge_or_epoch_is_ignored(world: World) -> None:
    sid = world.put(1000)
    world.ingest.come()
    world.ingest.answer_all = Result.LATER
    world.run(1)
    stored = [AckItem(sid=sid, result=Result.STORED)]
    world.ingest.say(world.spool.epoch, stored, edge="edge-2")
    world.ingest.say("0123456789abcdef", stored)
    world.run(1)
    assert world.pending == 1
    assert world.uplink.stats().counts["wrong_edge"] == 1


def test_a_large_sample_is_resumed_by_its_bitmap(world: World) -> None:
    world.ingest.come()
    world.run(1)
    sid = world.put(400_000)
    world.uplink.turn()
    world.broker.deliver()
    world.uplink.turn()
    assert world.broker.deliver(2) == 2
    world.broker.cut(EDGE)
    assert 0 < len(world.ingest.held[sid]) < 4
    world.broker.restore(EDGE)
    world.run(30)
    assert world.ingest.stored == world.samples
    assert world.ingest.data_bytes < 400_000 + 3 * 122_880
    assert len({index for _, index in world.ingest.data}) == 4


def test_an_ingest_that_lost_its_staging_gets_everything_again(world: World) -> None:
    world.ingest.come()
    world.run(1)
    sid = world.put(400_000)
    world.uplink.turn()
    world.broker.deliver()
    world.uplink.turn()
    world.broker.deliver(2)
    world.ingest.restart()
    assert sid not in world.ingest.held
    world.run(30)
    assert world.ingest.stored == world.samples


def test_the_broker_dies_and_comes_back(world: World) -> None:
    world.ingest.come()
    for i in range(20):
        world.put(50_000)
        world.run(0.5)
        if i % 4 == 0:
            world.broker.go_down()
            world.run(3)
            world.broker.come_up()
            world.ingest.come()
    world.run(30)
    assert world.ingest.stored == world.samples
    assert world.pending == 0


def test_the_same_chunk_cut_twice_halves_the_chunk(world: World) -> None:
    world.ingest.come()
    world.run(1)
    world.put(200_000)
    take, world.ingest.take = world.ingest.take, lambda payload: None
    for _ in range(2):
        before = world.uplink.stats().sent_bytes
        while world.uplink.stats().sent_bytes == before:
            world.uplink.turn()
            world.broker.deliver()
        world.broker.cut(EDGE)
        world.broker.restore(EDGE)
    world.ingest.take = take
    world.run(30)
    assert world.ingest.offers[-1].items[0].max_chunk == 61_440
    assert world.ingest.stored == world.samples


def test_the_byte_budget_holds(tmp_path: Path) -> None:
    settings = UplinkSettings(bytes_per_s=10_000, burst_bytes=20_000)
    world = World(tmp_path, settings=settings, chunk_bytes=16_384)
    world.ingest.come()
    for _ in range(40):
        world.put(10_000)
    world.run(20)
    assert 150_000 <= world.ingest.data_bytes <= 220_000 + 16_384
    world.close()


def test_hard_and_audit_share_and_flagged_goes_first(world: World) -> None:
    hard = [world.put(100) for _ in range(60)]
    audit = [world.put(100, Priority.AUDIT) for _ in range(60)]
    flagged = [world.put(100, Priority.FLAGGED) for _ in range(3)]
    world.ingest.come()
    world.run(10)
    order = [item.sid for offer in world.ingest.offers for item in offer.items]
    assert order[:3] == flagged
    first = order[3:63]
    assert (len(set(first) & set(hard)), len(set(first) & set(audit))) == (40, 20)
    assert all(len(offer.items) <= 16 for offer in world.ingest.offers)
    assert all(len(offer.encode()) <= 32 << 10 for offer in world.ingest.offers)


def test_small_samples_ride_along_when_the_cloud_allows(tmp_path: Path) -> None:
    world = World(tmp_path, unsolicited_bytes=50_000)
    world.ingest.come()
    world.run(1)
    world.put(20_000)
    world.uplink.turn()
    assert [t.rsplit("/", 1)[1] for u, t, _ in world.broker.log if u == EDGE][-2:] == ["offer", "data"]
    world.run(2)
    assert world.ingest.stored == world.samples
    assert len(world.ingest.data) == 1
    world.close()


def aggregate(epoch: str) -> Aggregate:
    return Aggregate(
        id=SID, edge=EDGE, epoch=epoch, number=1, line="cells", period_start=START, period_end=START, period=1, cells=[]
    )


def test_a_record_is_sent_until_its_receipt_and_survives_a_restart(world: World) -> None:
    world.uplink.record("agg", SID, aggregate(world.spool.epoch).encode())
    world.uplink.record("agg", SID, b"the same id again changes nothing")
    world.ingest.come()
    world.ingest.lose_acks = 2
    world.run(4)
    assert world.ingest.records[SID] == 1
    world.close()
    world.open()
    world.run(60)
    assert world.ingest.records[SID] == 3
    assert world.spool.account().records == 0
    world.run(60)
    assert world.ingest.records[SID] == 3


def test_a_record_that_its_topic_could_not_carry_is_refused_at_once(world: World) -> None:
    with pytest.raises(ValueError, match="topic takes"):
        world.uplink.record("flag", SID, bytes(5000))


def test_records_go_even_without_credit(world: World) -> None:
    world.ingest.come()
    world.ingest.credit = 0
    world.uplink.record("agg", SID, aggregate(world.spool.epoch).encode())
    world.run(1)
    assert world.ingest.records[SID] == 1


def test_presigned_put_is_no_receipt(world: World) -> None:
    world.ingest.come()
    world.ingest.puts = "https://store.invalid"
    world.fail_puts = 1
    sid = world.put(5000)

    def settle() -> None:
        for _ in range(100):
            world.run(0.5)
            time.sleep(0.01)
            if f"https://store.invalid/{sid}" in world.uploads:
                return

    settle()
    assert world.uploads == {f"https://store.invalid/{sid}": world.samples[sid]}
    assert world.pending == 1
    item, epoch, _ = world.ingest.items[sid]
    world.ingest.store(item, epoch, world.uploads[f"https://store.invalid/{sid}"])
    world.run(30)
    assert world.pending == 0


def test_presence_heartbeat_command_and_announcement(world: World) -> None:
    world.ingest.come()
    world.put(10)
    cloud = world.ingest.link
    command = Command(id=SID, edge=EDGE, issued_at=START, order=CheckUpdate())
    cloud.publish(topics.dn(EDGE, "cmd"), command.encode())
    cloud.publish(topics.dn(EDGE, "cmd"), command.model_copy(update={"edge": "edge-2"}).encode())
    cloud.publish(topics.dn(EDGE, "cmd"), b'{"v":1,"order":{"kind":"format_disk"}}')
    cloud.publish(topics.announce("cells"), Announce(timestamp_version=3, release=2, channel="stable").encode())
    world.run(21)
    assert world.commands == [command]
    assert [a.release for a in world.announcements] == [2]
    assert len(world.ingest.heartbeats) == 3
    assert world.ingest.heartbeats[-1].max_seq == 1
    assert world.uplink.stats().counts["malformed"] == 1
    world.uplink.stop()
    world.broker.deliver()
    assert [decode(Presence, state).online for state in world.ingest.states] == [True, False]


def test_spoiled_on_disk_is_declared_not_sent(world: World) -> None:
    sid = world.put(1000)
    good = world.put(1000)
    path = next((world.folder / "blobs").glob(f"*/{sid}.smp"))
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    world.ingest.come()
    world.run(5)
    assert set(world.ingest.stored) == {good}
    assert world.ingest.lost == {(world.spool.epoch, 1)}
    assert world.spool.account().lost == {"corrupt": 1}


def test_conservation_through_everything(world: World) -> None:
    """Offers, losses and pending tile the numbers although messages are lost and the box restarts."""
    world.ingest.come()
    world.broker.drop = 0.15
    for i in range(60):
        sid = world.put(2000)
        if i % 9 == 0:
            world.ingest.answer[sid] = AckItem(sid=sid, result=Result.NO, code="policy")
        world.run(1)
        if i % 20 == 19:
            world.close()
            world.open()
            world.ingest.come()
    world.broker.drop = 0.0
    world.ingest.come()
    world.run(200)
    books = world.spool.account()
    numbers = world.ingest.numbers | world.ingest.lost
    assert books.pending == 0
    assert numbers == {(books.epoch, n) for n in range(1, 61)}
    assert not world.ingest.numbers & world.ingest.lost


def test_the_thread_runs_it_all(tmp_path: Path) -> None:
    world = World(tmp_path, settings=UplinkSettings(poll_s=0.02))
    start = time.monotonic()
    world.clock.mono = lambda: time.monotonic() - start
    world.uplink.stop()
    world.spool.close()
    world.open()
    with world.broker.running():
        world.uplink.start()
        world.ingest.come()
        for _ in range(20):
            world.put(3000)
            world.uplink.nudge()
        deadline = time.monotonic() + 10
        while world.pending and time.monotonic() < deadline:
            time.sleep(0.02)
        assert world.ingest.stored == world.samples
        world.uplink.stop()
        world.uplink.stop()
    world.spool.close()
