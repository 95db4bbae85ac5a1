"""Uploads: the order of durability, and that every repetition, loss and lie ends well."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cloud import audit
from cloud.db.tables import Audit, DeadLetter, Edge, Sample, Staging, Task
from cloud.objects import sample_key
from models.contracts.base import canonical
from models.contracts.chunk import Chunk, encode_chunk
from models.contracts.uplink import bitmap_missing
from tests.cloud.kit import Crash, Plant, Shot, offer, png


def big(seq: int = 1, size: int = 50_000) -> Shot:
    return Shot(seq, random.Random(seq).randbytes(size))


def one_of_each(plant: Plant) -> None:
    """The invariant after any history: rows have whole objects, one task each, the audit chain holds."""
    for sample in plant.rows(Sample):
        assert plant.objects.content[sample_key(sample.sha256)][0]
    assert {task.sid for task in plant.rows(Task)} == {sample.sid for sample in plant.rows(Sample)}
    with plant.reads() as session:
        assert audit.verify(session) is None


def test_a_small_sample_is_stored_in_one_chunk_without_a_staging_file(plant: Plant) -> None:
    shot = Shot(1, png(1))
    assert plant.upload(shot) == "stored"
    (row,) = plant.rows(Sample)
    assert (row.type, row.width, row.height, row.serial, row.landed) == ("image/png", 32, 24, "P1", True)
    assert plant.objects.content[sample_key(shot.sha256)] == (shot.data, "image/png")
    assert plant.files.sids() == []
    assert plant.rows(Staging) == []
    one_of_each(plant)


def test_a_large_sample_is_assembled_from_chunks_in_any_order_and_repeated(plant: Plant) -> None:
    shot = big()
    answer = plant.send("offer", offer(shot))
    assert answer is not None
    assert answer.credit_bytes == plant.limits.edge_credit_bytes
    chunks = shot.chunks(16_384)
    assert len(chunks) == 4
    for index in (2, 0, 2, 3):
        assert plant.send("data", chunks[index]) is None
    answer = plant.send("data", chunks[1])
    assert answer is not None
    assert [item.result for item in answer.items] == ["stored"]
    assert plant.objects.content[sample_key(shot.sha256)][0] == shot.data
    assert plant.files.sids() == []


def test_unreadable_bytes_are_stored_as_octets(plant: Plant) -> None:
    assert plant.upload(Shot(1, b"\x89PNG broken", stratum="cannot_judge")) == "stored"
    (row,) = plant.rows(Sample)
    assert (row.type, row.width) == ("application/octet-stream", None)
    (task,) = plant.rows(Task)
    assert task.queue == "estimate" or task.value == 1.0


def test_a_replayed_offer_and_late_chunks_are_answered_have(plant: Plant) -> None:
    shot = big()
    assert plant.upload(shot) == "stored"
    assert plant.upload(shot) == "have"
    late = plant.send("data", shot.chunks(16_384)[0])
    assert late is not None
    assert late.items[0].result == "have"
    assert len(plant.rows(Sample)) == len(plant.rows(Task)) == 1


@pytest.mark.parametrize("step", ["landed", "object", "row"])
@pytest.mark.parametrize("size", [900, 50_000])
def test_a_crash_between_any_two_steps_loses_nothing_and_stores_once(plant: Plant, step: str, size: int) -> None:
    shot = big(size=size)
    plant.crash_at = step
    with pytest.raises(Crash):
        plant.upload(shot)
    committed = len(plant.rows(Sample))
    assert committed == (1 if step == "row" else 0)  # no answer was given, whatever is there
    plant.restart()
    assert plant.upload(shot) == ("have" if step == "row" else "stored")
    assert len(plant.rows(Sample)) == 1
    assert plant.rows(Staging) == []
    one_of_each(plant)


def test_the_object_is_there_before_the_row_is(plant: Plant) -> None:
    shot = Shot(1, png(2))
    plant.crash_at = "object"
    with pytest.raises(Crash):
        plant.upload(shot)
    assert sample_key(shot.sha256) in plant.objects.content
    assert plant.rows(Sample) == []


@pytest.mark.parametrize("size", [900, 50_000])
def test_a_store_that_is_down_makes_it_wait_and_no_byte_is_resent(plant: Plant, size: int) -> None:
    shot = big(size=size)
    plant.objects.down = True
    assert plant.upload(shot) == "later"
    assert plant.rows(Sample) == []
    answer = plant.send("offer", offer(shot))
    assert answer is not None
    assert (answer.items[0].result, answer.items[0].code, answer.credit_bytes) == ("later", "store_down", 0)
    calls = len(plant.objects.calls)
    plant.send("offer", offer(shot))
    assert len(plant.objects.calls) == calls  # it is left alone while it is down
    plant.objects.down = False
    plant.clock.advance(plant.limits.retry_after_s + 1)
    answer = plant.send("offer", offer(shot))
    assert answer is not None
    assert answer.items[0].result == "stored"
    one_of_each(plant)


def test_a_lost_answer_of_the_store_is_harmless(plant: Plant) -> None:
    shot = Shot(1, png(3))
    plant.objects.fail_after = 1
    assert plant.upload(shot) == "later"
    plant.clock.advance(10)
    assert plant.upload(shot) == "stored"


def test_a_store_that_kept_half_the_bytes_is_repaired_before_the_ack(plant: Plant) -> None:
    shot = Shot(1, png(4))
    plant.objects.truncate_next = 1
    assert plant.upload(shot) == "stored"
    assert plant.objects.content[sample_key(shot.sha256)][0] == shot.data


def test_a_store_that_goes_on_damaging_never_gets_an_ack(plant: Plant) -> None:
    plant.objects.truncate_next = 9
    assert plant.upload(Shot(1, png(4))) == "later"
    assert plant.rows(Sample) == []


def test_a_locked_database_answers_later(plant: Plant) -> None:
    shot = Shot(1, png(5))
    with plant.engine.connect() as probe:
        probe.exec_driver_sql("PRAGMA busy_timeout=1")
    plant.engine.dispose()
    blocker = plant.engine.connect()
    with blocker.begin():
        with plant.engine.connect() as other:  # the pool's next connection gives up at once
            other.rollback()
        answer = _impatient(plant).send("offer", offer(shot))
        assert answer is not None
        assert (answer.items[0].result, answer.credit_bytes) == ("later", 0)
    blocker.close()
    assert plant.upload(shot) == "stored"


def _impatient(plant: Plant) -> Plant:
    from sqlalchemy import event

    @event.listens_for(plant.engine, "checkout")
    def _short(connection, _record, _proxy) -> None:  # type: ignore[no-untyped-def]
        connection.execute("PRAGMA busy_timeout=20")

    return plant


def test_wrong_bytes_start_over_and_are_refused_in_the_end(plant: Plant) -> None:
    shot = big()
    lie = Shot(1, random.Random(9).randbytes(50_000), sid=shot.sid)
    answer = plant.send("offer", offer(shot))
    results = []
    for _ in range(3):
        for chunk in lie.chunks(16_384):
            answer = plant.send("data", chunk) or answer
        assert answer is not None
        results.append(answer.items[0].result.value)
    assert results == ["want", "want", "no"]
    assert answer is not None
    assert answer.items[0].code == "digest"
    assert plant.rows(Sample) == []
    assert plant.files.sids() == []
    assert plant.upload(shot) == "stored"


def test_the_same_id_with_other_content_is_a_conflict_and_audited(plant: Plant) -> None:
    shot = Shot(1, png(6))
    assert plant.upload(shot) == "stored"
    for twin in (Shot(1, png(7), sid=shot.sid), Shot(1, png(7), sid=Shot(2, b"x").sid)):
        answer = plant.send("offer", offer(twin))
        assert answer is not None
        assert (answer.items[0].result, answer.items[0].code) == ("no", "conflict")
    assert [row.action for row in plant.rows(Audit)] == ["sample_conflict"] * 2
    assert len(plant.rows(Sample)) == 1


def test_another_edge_cannot_touch_an_upload(plant: Plant) -> None:
    shot = big()
    plant.send("offer", offer(shot))
    assert plant.send("data", shot.chunks(16_384)[0], edge="edge-2") is None
    (row,) = plant.rows(Staging)
    assert row.held == ""
    thief = Shot(1, shot.data, edge="edge-2", sid=shot.sid)
    answer = plant.send("offer", offer(thief), "edge-2")
    assert answer is not None
    assert answer.items[0].code == "conflict"


def test_a_payload_that_speaks_for_another_edge_is_a_dead_letter(plant: Plant) -> None:
    assert plant.send("offer", offer(Shot(1, png(1))), edge="edge-2") is None
    assert [letter.code for letter in plant.rows(DeadLetter)] == ["wrong_edge"]


def test_an_unknown_edge_waits_until_it_is_enrolled(plant: Plant) -> None:
    shot = Shot(1, png(1), edge="edge-9")
    assert plant.upload(shot) == "later"
    with plant.begin() as session:
        session.add(Edge(name="edge-9", line="cells", enrolled_at=0))
    assert plant.upload(shot) == "stored"


@pytest.mark.parametrize(
    ("shot", "changes", "code"),
    [
        (Shot(1, b"x", line="other"), {}, "wrong_line"),
        (Shot(1, b"x"), {"meta_sha": "0" * 64}, "meta_digest"),
        (Shot(1, b"x"), {"sha256": "0" * 64}, "meta_mismatch"),
        (Shot(1, b"x"), {"size": 2}, "meta_mismatch"),
        (Shot(1, b"x"), {"seq": 7}, "meta_mismatch"),
        (Shot(1, b"x", extra={"camera": "NOT A NAME"}), {}, "bad_meta"),
        (Shot(1, b"x", extra={"future": "a\u0000b"}), {}, "bad_meta"),
        (Shot(1, b"x"), {"prio": "urgent"}, "malformed"),
    ],
)
def test_a_bad_item_is_refused_and_the_good_ones_go_on(plant: Plant, shot: Shot, changes: dict, code: str) -> None:
    good = Shot(2, png(2))
    answer = plant.send("offer", offer(shot, good, items=[shot.item(**changes), good.item()]))
    assert answer is not None
    results = {item.sid: (item.result.value, item.code) for item in answer.items}
    assert results == {shot.sid: ("no", code), good.sid: ("want", None)}


def test_a_sample_above_the_limit_is_refused(tmp_path: Path) -> None:
    plant = Plant(tmp_path, sample_bytes=100)
    assert plant.upload(big(size=101)) == "no"
    plant.engine.dispose()


def test_chunks_that_do_not_fit_the_want_are_dropped(plant: Plant) -> None:
    shot = big()
    plant.send("offer", offer(shot))
    other = shot.chunks(20_000)[0]
    short = encode_chunk(Chunk(sid=shot.sid, index=3, count=4, size=16_384, data=b"too short"))
    wrong_count = encode_chunk(Chunk(sid=shot.sid, index=0, count=5, size=16_384, data=shot.data[:16_384]))
    stranger = encode_chunk(Chunk(sid=Shot(9, b"").sid, index=0, count=1, size=5, data=b"hello"))
    for chunk in (other, short, wrong_count, stranger):
        assert plant.send("data", chunk) is None
    numbers = plant.service.numbers()
    assert (numbers["chunks_dropped"], numbers["chunks_without_offer"]) == (3, 1)
    (row,) = plant.rows(Staging)
    assert row.held == ""


def test_a_new_chunk_size_begins_with_an_empty_bitmap(tmp_path: Path) -> None:
    plant = Plant(tmp_path, chunk_bytes=20_000)
    shot = big()
    plant.send("offer", offer(shot))
    plant.send("data", shot.chunks(20_000)[0])
    answer = plant.send("offer", offer(shot, items=[shot.item(max_chunk=16_384)]))
    assert answer is not None
    assert answer.items[0].chunk == 16_384
    assert bitmap_missing(answer.items[0].chunks, 4) == [0, 1, 2, 3]
    plant.engine.dispose()


def test_a_restart_resumes_at_the_bitmap_and_survives_lost_staging(plant: Plant) -> None:
    shot = big()
    plant.send("offer", offer(shot))
    for chunk in shot.chunks(16_384)[:2]:
        plant.send("data", chunk)
    plant.restart()
    answer = plant.send("offer", offer(shot))
    assert answer is not None
    assert bitmap_missing(answer.items[0].chunks, 4) == [2, 3]
    plant.files.drop(shot.sid)  # the disk forgot what was not synced
    for chunk in shot.chunks(16_384)[2:]:
        answer = plant.send("data", chunk)
    assert answer is not None
    assert answer.items[0].result == "want"  # the digest told
    assert plant.upload(shot) == "stored"


def test_staging_is_bounded_and_drains(tmp_path: Path) -> None:
    plant = Plant(tmp_path, staging_bytes=122_880, open_uploads=2)
    first, second, third, small = big(1, 80_000), big(2, 80_000), big(3, 30_000), big(4, 100)
    answer = plant.send("offer", offer(first, second, third, small))
    assert answer is not None
    results = {item.sid: item.result.value for item in answer.items}
    assert [results[shot.sid] for shot in (first, second, third, small)] == ["want", "later", "want", "later"]
    for shot in (first, third, second, small):
        assert plant.upload(shot) == "stored"
    assert plant.uploads.credits.reserved == {}
    plant.engine.dispose()


def test_two_ingests_on_one_database_store_a_sample_once(plant: Plant) -> None:
    shot = Shot(1, png(8))
    answer = plant.send("offer", offer(shot))
    assert answer is not None
    first = plant.service
    plant.restart()
    second = plant.service
    results = []
    for service in (first, second):
        plant.service = service
        reply = plant.send("data", shot.chunks(16_384)[0])
        assert reply is not None
        results.append(reply.items[0].result.value)
    assert results == ["stored", "have"]
    assert len(plant.rows(Sample)) == 1


def test_the_coin_is_seeded_by_the_sample_and_has_the_configured_share(plant: Plant) -> None:
    from cloud.ingest.rules import uniform

    draws = [uniform(0, "queue", Shot(seq, b"").sid) for seq in range(4000)]
    assert abs(sum(draw < 0.3 for draw in draws) / 4000 - 0.3) < 0.03
    shot = Shot(1, png(1), u=0.7)
    plant.upload(shot)
    (task,) = plant.rows(Task)
    expected = "estimate" if uniform(0, "queue", shot.sid) < 0.3 else "value"
    assert (task.queue, task.pi_label) == (expected, 0.3)


def test_a_broken_offer_is_a_dead_letter(plant: Plant) -> None:
    for payload in (b"", b"{", b"[]", canonical({"items": []}), b'{"a":' * 99, b"\xff", b"x" * 40_000):
        assert plant.send("offer", payload) is None
    letters = plant.rows(DeadLetter)
    assert {letter.code for letter in letters} == {"malformed"}
    assert len(letters) == 7
