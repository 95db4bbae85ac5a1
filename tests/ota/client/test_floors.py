"""The rules of the floors without network, and their two copies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contracts.control import ReportReason
from models.contracts.release_manifest import ChannelManifest, TargetRef
from ota.client.floors import (
    Floors,
    FloorStore,
    SeenRole,
    raise_clock,
    raise_release,
    raise_roles,
    rotated,
)
from ota.errors import SecurityError
from tests.ota.kit import T0, FastFs

KEYS, OTHER = ("a", "b"), ("c",)


def seen(root: int = 1, timestamp: int = 1, keys: tuple[str, ...] = KEYS) -> dict[str, SeenRole]:
    return {"root": SeenRole(root, ("r",), None), "timestamp": SeenRole(timestamp, keys, "root")}


def channel(release: int, adapter: str = "1" * 64, **changes: Any) -> ChannelManifest:
    ref = TargetRef(path="adapter/cells/r000001.manifest.json", sha256=adapter, length=1)
    document = {
        "line": "cells", "channel": "stable", "release": release, "model_version": "m", "base": ref, "adapter": ref,
        "plan": {"salt": "s", "waves": [{"percent": 100}]}, "actor": "a", "created_at": T0, **changes,
    }  # fmt: skip
    return ChannelManifest.model_validate(document)


def test_versions_only_grow() -> None:
    floors = raise_roles(Floors(), seen(timestamp=5))
    assert raise_roles(floors, seen(timestamp=5)) == floors
    with pytest.raises(SecurityError) as caught:
        raise_roles(floors, seen(timestamp=4))
    assert caught.value.reason is ReportReason.ROLLBACK


def test_a_lower_version_needs_other_keys_and_a_newer_delegator() -> None:
    floors = raise_roles(Floors(), seen(timestamp=2**31))
    assert raise_roles(floors, seen(root=2, timestamp=7, keys=OTHER)).roles["timestamp"].version == 7
    for wrong in (seen(root=2, timestamp=7), seen(root=1, timestamp=7, keys=OTHER)):
        with pytest.raises(SecurityError):
            raise_roles(floors, wrong)


def test_an_older_root_is_refused_whatever_its_keys() -> None:
    floors = raise_roles(Floors(), seen(root=3, timestamp=9))
    with pytest.raises(SecurityError, match="root version 2"):
        raise_roles(floors, seen(root=2, timestamp=10, keys=OTHER))


def test_the_order_of_key_ids_is_no_rotation() -> None:
    floors = raise_roles(Floors(), seen())
    assert not rotated(floors, seen(root=2, keys=KEYS[::-1]), "timestamp")


def test_releases_only_grow_and_mean_one_model() -> None:
    floors = raise_release(Floors(), channel(5), new_keys=False)
    assert raise_release(floors, channel(5), new_keys=False) == floors
    with pytest.raises(SecurityError) as lower:
        raise_release(floors, channel(4), new_keys=False)
    assert lower.value.reason is ReportReason.ROLLBACK
    with pytest.raises(SecurityError) as other:
        raise_release(floors, channel(5, adapter="2" * 64), new_keys=False)
    assert other.value.reason is ReportReason.TAMPERED
    assert raise_release(floors, channel(2), new_keys=True).releases["cells/stable"].release == 2


def test_revocations_are_never_forgotten() -> None:
    floors = raise_release(Floors(), channel(1, revoked=["2" * 64], min_release=1), new_keys=False)
    floors = raise_release(floors, channel(2), new_keys=False)
    assert floors.revoked["cells"] == ["2" * 64]
    assert floors.min_release["cells"] == 1


def test_the_clock_only_grows() -> None:
    floors = raise_clock(Floors(), T0)
    assert raise_clock(floors, T0 - timedelta(days=1)).clock == T0
    assert raise_clock(floors, T0 + timedelta(days=1)).clock == T0 + timedelta(days=1)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_whatever_is_offered_the_floor_is_the_highest_accepted(versions: list[int]) -> None:
    floors, highest = Floors(), 0
    for version in versions:
        try:
            floors = raise_roles(floors, seen(timestamp=version))
        except SecurityError:
            assert version < highest
        highest = max(highest, version)
        assert floors.roles["timestamp"].version == highest


@pytest.fixture
def store(tmp_path: Path) -> FloorStore:
    return FloorStore(tmp_path, fs=FastFs())


def some_floors(version: int = 7) -> Floors:
    return raise_clock(raise_roles(Floors(), seen(timestamp=version)), datetime(2026, 1, version, tzinfo=UTC))


def test_floors_survive_a_restart(store: FloorStore) -> None:
    store.save(some_floors())
    assert store.load(provisioned=True) == some_floors()


@pytest.mark.parametrize("name", ["a.json", "b.json"])
@pytest.mark.parametrize("damage", [b"", b"\0" * 200, b'{"floors": {}, "sha256": "0"}', None])
def test_one_damaged_copy_is_no_loss(store: FloorStore, tmp_path: Path, name: str, damage: bytes | None) -> None:
    store.save(some_floors())
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage)
    assert store.load(provisioned=True) == some_floors()


def test_an_edited_copy_does_not_count(store: FloorStore, tmp_path: Path) -> None:
    store.save(some_floors(7))
    for name in ("a.json", "b.json"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace('"version":7', '"version":1'))
    with pytest.raises(SecurityError) as caught:
        store.load(provisioned=False)
    assert caught.value.reason is ReportReason.TAMPERED


def test_of_two_copies_the_later_counts(store: FloorStore, tmp_path: Path) -> None:
    store.save(some_floors(7))
    older = (tmp_path / "a.json").read_bytes()
    store.save(some_floors(8))
    (tmp_path / "b.json").write_bytes(older)
    assert store.load(provisioned=True) == some_floors(8)


def test_a_box_that_never_had_floors_gets_new_ones(store: FloorStore, tmp_path: Path) -> None:
    assert store.load(provisioned=False) == Floors()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_a_box_that_had_floors_does_not(store: FloorStore) -> None:
    with pytest.raises(SecurityError, match="provision it again"):
        store.load(provisioned=True)
