from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.aggregates import PeriodLedger
from edge_agent.checkpoint import Checkpoint
from edge_agent.flags import FlagAnswer, FlagInbox, FlagRequest
from edge_agent.housekeeping import Housekeeper, restore
from edge_agent.selector.pace import Pace
from models.contracts.base import decode
from models.contracts.telemetry import Aggregate, Flag
from tests.edge_agent.making import minting
from tests.edge_agent.test_pipeline import EPOCH, Bench


class Records:
    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, bytes]] = {}
        self.fail = False

    def __call__(self, kind: str, key: str, payload: bytes) -> None:
        if self.fail:
            raise OSError("disk full")
        self.kept[key] = (kind, payload)

    def of(self, kind: str) -> list[bytes]:
        return [payload for known, payload in self.kept.values() if known == kind]


class House:
    def __init__(self, folder: Path, bench: Bench) -> None:
        self.bench, self.records = bench, Records()
        self.flags = FlagInbox(folder / "flags")
        self.checkpoint = Checkpoint(folder / "counters.json")
        self.pace = bench.pipeline._selector.pace
        self.keeper = Housekeeper(
            edge="edge-1",
            line="cells",
            pipeline=bench.pipeline,
            ledger=bench.ledger,
            pace=self.pace,
            checkpoint=self.checkpoint,
            flags=self.flags,
            record=self.records,
            epoch=lambda: EPOCH,
            clock=bench.hand.clock(),
            mint=minting(5),
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, Bench())


def test_a_finished_hour_becomes_a_record_once(house: House) -> None:
    for _ in range(3):
        house.bench.pipeline.process(house.bench.belt.frame())
    house.keeper.tick()
    assert house.records.of("agg") == []
    house.bench.hand.move(3700)
    for _ in range(2):
        house.keeper.tick()
    (payload,) = house.records.of("agg")
    assert sum(cell.n for cell in decode(Aggregate, payload).cells) == 3


def test_a_record_that_cannot_be_stored_is_tried_again(house: House) -> None:
    house.bench.pipeline.process(house.bench.belt.frame())
    house.bench.hand.move(3700)
    house.records.fail = True
    with pytest.raises(OSError, match="disk full"):
        house.keeper.tick()
    house.records.fail = False
    house.keeper.tick()
    assert len(house.records.of("agg")) == 1


def test_counters_survive_a_restart_within_the_hour(house: House, tmp_path: Path) -> None:
    for _ in range(4):
        house.bench.pipeline.process(house.bench.belt.frame())
    house.keeper.stop(1)
    ledger = PeriodLedger(edge="edge-1", line="cells", hour_s=3600)
    state = restore(Checkpoint(tmp_path / "counters.json").load(), ledger=ledger)
    assert state is not None
    assert state.spent == house.pace.spent > 0
    assert ledger.snapshot() == house.bench.ledger.snapshot()


def test_a_crash_after_the_record_repeats_the_same_id(house: House, tmp_path: Path) -> None:
    house.bench.pipeline.process(house.bench.belt.frame())
    house.keeper.save()
    house.bench.hand.move(3700)
    house.keeper._checkpoint = Checkpoint(tmp_path / "elsewhere.json")  # what follows never reaches the disk
    house.keeper.tick()
    ledger = PeriodLedger(edge="edge-1", line="cells", hour_s=3600)
    restore(Checkpoint(tmp_path / "counters.json").load(), ledger=ledger)
    ((_, (again,)),) = ledger.due(house.bench.hand.at, epoch=EPOCH)
    assert again.id in house.records.kept


@pytest.mark.parametrize("parts", [{"ledger": 5}, {"ledger": {}}, {"pace": {"nonsense": 1}}, {"pace": []}])
def test_damaged_counters_are_left_out(parts: dict[str, object]) -> None:
    assert restore(parts, ledger=PeriodLedger(edge="e", line="l", hour_s=3600)) is None


def test_an_operators_flag_becomes_a_record_with_the_sample(house: House) -> None:
    frame = house.bench.belt.frame()
    house.bench.pipeline.process(frame)
    house.flags.post(FlagRequest(serial=frame.part.serial, reason="missed crack", claimed="crack"))
    house.flags.post(FlagRequest(serial="long gone", reason="scratch"))
    house.keeper.tick()
    house.keeper.tick()
    flags = {flag.serial: flag for flag in (decode(Flag, payload) for payload in house.records.of("flag"))}
    assert len(flags) == 2
    assert (flags[frame.part.serial].sid, flags[frame.part.serial].claimed) == (frame.id, "crack")
    assert flags["long gone"].sid is None


def test_who_asks_learns_whether_the_part_was_known(house: House, tmp_path: Path) -> None:
    frame = house.bench.belt.frame()
    house.bench.pipeline.process(frame)

    def ask(serial: str, *, agent: bool = True) -> FlagAnswer | None:
        hand = [0.0]

        def sleep(seconds: float) -> None:
            hand[0] += seconds
            if agent:
                house.keeper.tick()

        return house.flags.ask(
            FlagRequest(serial=serial, reason="missed"), within_s=3, mono=lambda: hand[0], sleep=sleep
        )

    assert ask(frame.part.serial) == FlagAnswer(sid=frame.id)
    assert ask("long gone") == FlagAnswer(sid=None)
    assert list((tmp_path / "flags").iterdir()) == []
    assert ask(frame.part.serial, agent=False) is None
    assert [path.suffix for path in (tmp_path / "flags").iterdir()] == [".json"], "it waits for the agent"


def test_a_flag_nobody_can_read_is_removed(house: House, tmp_path: Path) -> None:
    (tmp_path / "flags" / "x.json").write_text("{")
    house.keeper.tick()
    assert list((tmp_path / "flags").iterdir()) == []


def test_pace_restores_only_what_it_saved() -> None:
    pace = Pace(bytes_per_hour=10, hour_s=3600)
    pace.arrive(1e9, size=4)
    assert Pace.restore(pace.snapshot()).seen == 1
