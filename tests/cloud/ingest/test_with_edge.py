"""The real spool and the real uplink protocol against ingest, over a channel that loses, repeats and reorders."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cloud.db.tables import Sample
from cloud.fleet.service import FleetService
from cloud.objects import sample_key
from edge_agent.spool.sample import Accepted
from edge_agent.spool.spool import Limits, Spool
from edge_agent.uplink.protocol import Protocol, Send
from edge_agent.uplink.settings import UplinkSettings
from models.contracts.uplink import Ack, IngestLimits, IngestState, Priority
from tests.cloud.ingest.test_records import heartbeat
from tests.cloud.kit import Plant
from tests.edge_agent.spool.envelopes import Clock, builder

SAMPLES = 14
STATE = IngestState(online=True, instance="i", limits=IngestLimits(chunk_bytes=16_384, unsolicited_bytes=16_384))


def spool_of(folder: Path, clock: Clock, rng: random.Random) -> Spool:
    limits = Limits(ballast_bytes=4096, min_free_bytes=0)
    return Spool(folder, edge="edge-1", now=clock.now, mono=clock.mono, rng=rng, limits=limits)


def step(plant: Plant, protocol: Protocol, clock: Clock, rng: random.Random, lossy: float) -> None:
    """One message of the edge, if it has one, and what comes back; then time passes."""
    send = protocol.next(clock.mono())
    if isinstance(send, Send):
        protocol.sent(send, clock.mono())
        answers: list[Ack] = []
        for _ in range((rng.random() >= lossy) + (rng.random() < lossy / 2)):
            answer = plant.send(send.kind, send.payload)
            answers += [answer] if answer is not None and rng.random() >= lossy else []
        rng.shuffle(answers)
        for answer in answers:
            protocol.on_ack(answer, clock.mono())
    clock.seconds += 0.01 if send else 2.0
    plant.clock.advance(0.01 if send else 2.0)


@pytest.mark.parametrize("lossy", [0.0, 0.2])
def test_every_accepted_sample_arrives_once_whatever_the_channel_and_the_store_do(tmp_path: Path, lossy: float) -> None:
    rng, clock = random.Random(7), Clock()
    (tmp_path / "cloud").mkdir()
    plant = Plant(tmp_path / "cloud", edge_credit_bytes=122_880, staging_bytes=400_000)
    with spool_of(tmp_path / "spool", clock, rng) as spool:
        images = [rng.randbytes(rng.choice((300, 9000, 70_000))) for _ in range(SAMPLES)]
        kept = [spool.put(builder(image, rng), image, Priority.HARD) for image in images]
        assert all(isinstance(one, Accepted) for one in kept)
        protocol = Protocol(edge="edge-1", store=spool, settings=UplinkSettings(), rng=rng)
        protocol.on_connection(True, 0.0)
        protocol.on_ingest(STATE, 0.0)
        for turn in range(6000):
            plant.objects.down = lossy > 0 and 40 < turn < 90
            if lossy > 0 and turn in (30, 150):
                plant.restart()
            step(plant, protocol, clock, rng, lossy)
            if spool.account().pending == 0:
                break
        account = spool.account()
        assert account.pending == 0
        rows = plant.rows(Sample)
        assert sorted(row.seq for row in rows) == list(range(1, SAMPLES + 1))
        assert {plant.objects.content[sample_key(row.sha256)][0] for row in rows} == set(images)
        beat = heartbeat(epoch=spool.epoch, max_seq=account.max_seq)
        plant.send("hb", beat)
        fleet = FleetService(begin=plant.begin, reads=plant.reads, now=plant.clock)
        assert fleet.conservation("cells").holds
        assert protocol.counts["samples_no"] == 0
    plant.engine.dispose()


def test_a_loss_declared_by_the_edge_is_taken_and_acknowledged(tmp_path: Path) -> None:
    rng, clock = random.Random(3), Clock()
    (tmp_path / "cloud").mkdir()
    plant = Plant(tmp_path / "cloud")
    with spool_of(tmp_path / "spool", clock, rng) as spool:

        def broken(epoch: str, seq: int):  # type: ignore[no-untyped-def]
            raise RuntimeError("no envelope")

        with pytest.raises(RuntimeError):
            spool.put(broken, b"x", Priority.HARD)
        image = b"image"
        assert isinstance(spool.put(builder(image, rng), image, Priority.AUDIT), Accepted)
        protocol = Protocol(edge="edge-1", store=spool, settings=UplinkSettings(), rng=rng)
        protocol.on_connection(True, 0.0)
        protocol.on_ingest(STATE, 0.0)
        for _ in range(200):
            step(plant, protocol, clock, rng, 0.0)
        plant.send("hb", heartbeat(epoch=spool.epoch, max_seq=spool.account().max_seq))
        assert spool.records_due(8) == []
        (account,) = FleetService(begin=plant.begin, reads=plant.reads, now=plant.clock).conservation("cells").accounts
        assert (account.stored, sum(account.lost.values()), account.missing) == (1, 1, [])
    plant.engine.dispose()


def test_a_sample_refused_for_ever_is_quarantined_and_declared(tmp_path: Path) -> None:
    rng, clock = random.Random(3), Clock()
    (tmp_path / "cloud").mkdir()
    plant = Plant(tmp_path / "cloud", sample_bytes=100)
    with spool_of(tmp_path / "spool", clock, rng) as spool:
        image = rng.randbytes(200)
        spool.put(builder(image, rng), image, Priority.HARD)
        protocol = Protocol(edge="edge-1", store=spool, settings=UplinkSettings(), rng=rng)
        protocol.on_connection(True, 0.0)
        protocol.on_ingest(STATE, 0.0)
        for _ in range(300):
            step(plant, protocol, clock, rng, 0.0)
        plant.send("hb", heartbeat(epoch=spool.epoch, max_seq=1))
        (account,) = FleetService(begin=plant.begin, reads=plant.reads, now=plant.clock).conservation("cells").accounts
        assert (account.stored, account.lost) == (0, {"refused": 1})
    plant.engine.dispose()
