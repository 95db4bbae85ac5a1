"""Dead letters: bounded in size, number and rate; a flood of one edge cannot push out another's."""

from __future__ import annotations

from pathlib import Path

from cloud.db.tables import DeadLetter
from cloud.ingest.dead_letters import MAX_PAYLOAD, PER_MINUTE, DeadLetters
from tests.cloud.kit import Plant


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    plant = Plant(tmp_path, dead_letters=5)
    for number in range(12):
        plant.dead.add(topic="t", edge="edge-1", code="malformed", detail=str(number), payload=b"")
    assert [row.detail for row in plant.rows(DeadLetter)] == ["7", "8", "9", "10", "11"]
    plant.engine.dispose()


def test_a_flood_is_counted_not_kept(plant: Plant) -> None:
    for _ in range(PER_MINUTE + 20):
        plant.dead.add(topic="t", edge="edge-1", code="malformed", detail="", payload=b"")
    plant.dead.add(topic="t", edge="edge-2", code="malformed", detail="", payload=b"")
    assert len(plant.rows(DeadLetter)) == PER_MINUTE + 1
    assert plant.dead.counts["malformed"] == PER_MINUTE + 21
    plant.clock.advance(61)
    plant.dead.add(topic="t", edge="edge-1", code="malformed", detail="", payload=b"")
    assert len(plant.rows(DeadLetter)) == PER_MINUTE + 2


def test_a_payload_is_cut(plant: Plant) -> None:
    plant.dead.add(topic="t" * 999, edge=None, code="malformed", detail="d" * 9999, payload=b"x" * (MAX_PAYLOAD + 1))
    (row,) = plant.rows(DeadLetter)
    assert (len(row.payload), len(row.topic), len(row.detail)) == (MAX_PAYLOAD, 256, 2000)


def test_a_database_that_is_away_costs_only_the_copy(plant: Plant) -> None:
    plant.engine.dispose()
    with plant.engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE dead_letters")
        connection.commit()
    letters = DeadLetters(begin=plant.begin, now=plant.clock, keep=3)
    letters.add(topic="t", edge=None, code="malformed", detail="", payload=b"")
    assert letters.counts["malformed"] == 1
