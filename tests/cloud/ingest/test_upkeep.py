"""Landing copies and stale uploads: nothing goes before the store is known to have it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloud.db.tables import Audit, Sample, Staging
from cloud.ingest.images import SampleImages
from cloud.ingest.upkeep import Upkeep
from cloud.objects import ObjectMissing, StoreUnavailable, sample_key
from tests.cloud.kit import Plant, Shot, offer, png


def upkeep(plant: Plant) -> Upkeep:
    return Upkeep(
        begin=plant.begin, reads=plant.reads, now=plant.clock, objects=plant.objects, landing=plant.landing,
        limits=plant.limits, forget=plant.uploads.forget,
    )  # fmt: skip


def landed(plant: Plant) -> list[bool]:
    return [row.landed for row in plant.rows(Sample)]


def stored(plant: Plant, seed: int = 1) -> Shot:
    shot = Shot(seed, png(seed))
    assert plant.upload(shot) == "stored"
    assert plant.landing is not None
    plant.landing.touch(shot.sha256, plant.clock.us / 1e6)
    return shot


def test_a_landing_copy_goes_after_its_time(plant: Plant) -> None:
    shot = stored(plant)
    assert plant.landing is not None
    plant.clock.advance(plant.limits.landing_keep_s - 1)
    upkeep(plant).tick()
    assert landed(plant) == [True]
    plant.clock.advance(2)
    upkeep(plant).tick()
    assert landed(plant) == [False]
    assert plant.landing.read(shot.sha256) is None


def test_an_object_the_store_lost_is_put_back_and_kept_again(plant: Plant) -> None:
    shot = stored(plant)
    plant.objects.content.clear()
    plant.clock.advance(plant.limits.landing_keep_s + 1)
    upkeep(plant).tick()
    assert plant.objects.content[sample_key(shot.sha256)][0] == shot.data
    assert landed(plant) == [True]
    assert [row.action for row in plant.rows(Audit)] == ["object_restored"]
    upkeep(plant).tick()
    assert landed(plant) == [True]  # it ages like a new one
    plant.clock.advance(plant.limits.landing_keep_s + 1)
    upkeep(plant).tick()
    assert landed(plant) == [False]


def test_a_truncated_object_is_replaced(plant: Plant) -> None:
    shot = stored(plant)
    plant.objects.content[sample_key(shot.sha256)] = (shot.data[:9], "image/png")
    plant.clock.advance(plant.limits.landing_keep_s + 1)
    upkeep(plant).tick()
    assert plant.objects.content[sample_key(shot.sha256)][0] == shot.data


def test_a_loss_without_a_copy_is_told(plant: Plant) -> None:
    shot = stored(plant)
    assert plant.landing is not None
    plant.objects.content.clear()
    plant.landing.drop(shot.sha256)
    plant.clock.advance(plant.limits.landing_keep_s + 1)
    upkeep(plant).tick()
    assert [row.action for row in plant.rows(Audit)] == ["object_lost"]
    upkeep(plant).tick()
    assert len(plant.rows(Audit)) == 1


def test_a_store_that_is_down_keeps_the_copy(plant: Plant) -> None:
    stored(plant)
    plant.objects.down = True
    plant.clock.advance(plant.limits.landing_keep_s + 1)
    upkeep(plant).tick()
    assert landed(plant) == [True]


def test_an_upload_nobody_continues_is_forgotten(plant: Plant) -> None:
    shot = Shot(1, os.urandom(50_000))
    plant.send("offer", offer(shot))
    plant.send("data", shot.chunks(16_384)[0])
    plant.clock.advance(plant.limits.staging_keep_s + 1)
    upkeep(plant).tick()
    assert plant.rows(Staging) == []
    assert plant.files.sids() == []
    assert plant.uploads.credits.reserved == {}


def test_staged_bytes_without_a_row_are_dropped_at_start(plant: Plant) -> None:
    plant.files.write("stray", 0, b"x")
    plant.restart()
    assert plant.files.sids() == []


def test_a_copy_that_never_became_a_row_goes_in_the_end(plant: Plant) -> None:
    assert plant.landing is not None
    shot = Shot(1, png(1))
    plant.objects.down = True
    plant.upload(shot)
    plant.landing.touch(shot.sha256, plant.clock.us / 1e6)
    upkeep(plant).tick()
    assert plant.landing.read(shot.sha256) == shot.data
    plant.clock.advance(90_000)
    upkeep(plant).tick()
    assert plant.landing.read(shot.sha256) is None


def test_images_are_read_from_the_copy_when_the_store_lost_them(plant: Plant) -> None:
    shot = stored(plant)
    images = SampleImages(objects=plant.objects, landing=plant.landing)
    plant.objects.content[sample_key(shot.sha256)] = (b"damaged", "image/png")
    assert images.read(shot.sha256) == shot.data
    plant.objects.content.clear()
    assert images.read(shot.sha256) == shot.data
    plant.objects.down = True
    assert images.read(shot.sha256) == shot.data
    assert plant.landing is not None
    plant.landing.drop(shot.sha256)
    with pytest.raises(StoreUnavailable):
        images.read(shot.sha256)
    plant.objects.down = False
    with pytest.raises(ObjectMissing):
        images.read(shot.sha256)


def test_a_damaged_copy_is_no_copy(plant: Plant, tmp_path: Path) -> None:
    shot = stored(plant)
    assert plant.landing is not None
    (tmp_path / "landing" / shot.sha256[:2] / shot.sha256).write_bytes(b"rotten")
    assert plant.landing.read(shot.sha256) is None
