"""Attacks on the way from the repository to the box. The numbers are those of the design's attack table."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from models.contracts.control import ReportReason
from models.contracts.release_manifest import TargetRef
from ota.client import Limits, ReleaseClient
from ota.errors import BlockedError, RefusedError, SecurityError, TransientError
from ota.keys import KeyFolder, OnlineSigners
from tests.ota.kit import LINE, OTHER_LINE, T0, Plant, adapter_blobs
from tests.ota.stage import Stage, body, chunked
from tests.ota.thief import Thief, nothing

Box = Callable[..., ReleaseClient]


@pytest.fixture
def thief(plant: Plant) -> Thief:
    return Thief(plant)


@pytest.fixture
def current(box: Box) -> ReleaseClient:
    """A box that runs release 1."""
    client = box()
    client.fetch(client.check(LINE, "stable"))
    return client


def refused(client: ReleaseClient, reason: ReportReason, line: str = LINE) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        client.check(line, "stable")
    assert caught.value.reason is reason, caught.value
    security = reason not in {ReportReason.EXPIRED, ReportReason.REVOKED, ReportReason.WRONG_LINE}
    assert isinstance(caught.value, SecurityError) is security
    assert client.unforeseen == 0
    return caught.value


def save(plant: Plant, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plant.folder, tmp_path / "old"))


def replay(plant: Plant, old: Path) -> None:
    shutil.rmtree(plant.folder / "metadata")
    shutil.copytree(old / "metadata", plant.folder / "metadata")


def test_01_arbitrary_bytes_of_the_same_length(plant: Plant, box: Box) -> None:
    client = box()
    channel = client.check(LINE, "stable")
    path = next(p for p in plant.everything() if p.endswith("r000001.onnx_adapter"))
    (plant.folder / path).write_bytes(b"e" * 3_000)
    with pytest.raises(SecurityError) as caught:
        client.fetch(channel)
    assert caught.value.reason is ReportReason.DIGEST
    assert not list((client.blobs.folder / ".part").iterdir())


def test_01_an_arbitrary_chunk_of_the_base(plant: Plant, box: Box) -> None:
    client = box()
    channel = client.check(LINE, "stable")
    chunk = next(p for p in plant.everything() if "/chunks/" in p)
    length = (plant.folder / chunk).stat().st_size
    (plant.folder / chunk).write_bytes(b"e" * length)
    with pytest.raises(SecurityError) as caught:
        client.fetch(channel)
    assert caught.value.reason is ReportReason.DIGEST


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", f"channel-{LINE}"])
def test_02_03_signed_by_an_unknown_key(thief: Thief, current: ReleaseClient, role: str) -> None:
    data = thief.resign(role, [thief.evil], nothing)
    if role == "snapshot":
        _name_snapshot(thief, data)
    elif role != "timestamp":
        thief.list_role(role, data)
    refused(current, ReportReason.SIGNATURE)


def test_04_the_whole_old_repository_is_replayed(plant: Plant, current: ReleaseClient, tmp_path: Path) -> None:
    old = save(plant, tmp_path)
    plant.release(2)
    current.check(LINE, "stable")
    replay(plant, old)
    refused(current, ReportReason.ROLLBACK)


def test_05_06_stolen_snapshot_and_timestamp_keys_list_an_older_role(
    plant: Plant, thief: Thief, current: ReleaseClient
) -> None:
    older = (plant.folder / "metadata" / f"{thief.newest(f'channel-{LINE}')}.channel-{LINE}.json").read_bytes()
    plant.release(2)
    current.check(LINE, "stable")
    thief.list_role(f"channel-{LINE}", older)
    refused(current, ReportReason.ROLLBACK)


def test_07_the_snapshot_drops_a_role(thief: Thief, current: ReleaseClient) -> None:
    thief.seal(lambda metadata: metadata.signed.meta.pop(f"channel-{LINE}.json"))
    refused(current, ReportReason.TAMPERED)


@pytest.mark.parametrize("days", [1.1, 4, 8, 100])
def test_08_to_10_freeze_stops_updating(plant: Plant, current: ReleaseClient, days: float) -> None:
    plant.clock.forward(days=days)
    refused(current, ReportReason.EXPIRED)


def test_08_updating_goes_on_when_the_server_signs_again(plant: Plant, current: ReleaseClient) -> None:
    plant.clock.forward(days=2)
    refused(current, ReportReason.EXPIRED)
    plant.repository.renew_timestamp(plant.keys.online())
    assert current.check(LINE, "stable").release == 1


def test_10b_the_age_of_the_news_is_told(plant: Plant, current: ReleaseClient) -> None:
    plant.clock.forward(hours=20)
    current.check(LINE, "stable")
    assert current.timestamp_age == timedelta(hours=20)


def test_11_12_an_old_file_under_a_new_version_name(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    role = f"channel-{LINE}"
    old = (plant.folder / "metadata" / f"{thief.newest(role)}.{role}.json").read_bytes()
    plant.release(2)
    (plant.folder / "metadata" / f"{thief.newest(role)}.{role}.json").write_bytes(old)
    refused(current, ReportReason.DIGEST)


def test_13_14_another_lines_role_lists_this_lines_path(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    forged = plant.channel(9, adapter=2).encode()
    change = thief.put_target(f"channel/{LINE}/stable.json", forged)
    data = thief.resign(f"channel-{OTHER_LINE}", [plant.keys.signer("channel")], change)
    thief.list_role(f"channel-{OTHER_LINE}", data)
    assert current.check(LINE, "stable").release == 1


def test_15_an_endless_target_ends_at_the_signed_length(plant: Plant, box: Box, stage: Stage) -> None:
    client = box()
    channel = client.check(LINE, "stable")
    path = next(p for p in plant.everything() if p.endswith("r000001.onnx_adapter"))
    stage.lies[path] = chunked(_endless)
    with pytest.raises(SecurityError) as caught:
        client.fetch(channel)
    assert caught.value.reason is ReportReason.DIGEST
    assert client.bytes_received < 10 << 20


def test_16_an_endless_timestamp(current: ReleaseClient, stage: Stage) -> None:
    stage.lies["metadata/timestamp.json"] = chunked(_endless)
    refused(current, ReportReason.DIGEST)


def test_16_a_signed_length_above_the_cap_is_refused_before_the_first_byte(
    plant: Plant, thief: Thief, current: ReleaseClient, stage: Stage
) -> None:
    thief.channel(plant.channel(2).encode() + b" " * (2 << 20))
    with pytest.raises(RefusedError) as caught:
        current.check(LINE, "stable")
    assert caught.value.reason is ReportReason.REQUIREMENTS


def test_17_a_truncated_target(plant: Plant, box: Box) -> None:
    client = box()
    channel = client.check(LINE, "stable")
    path = plant.folder / next(p for p in plant.everything() if p.endswith("r000001.refs"))
    path.write_bytes(path.read_bytes()[:1_000])
    with pytest.raises(SecurityError) as caught:
        client.fetch(channel)
    assert caught.value.reason is ReportReason.DIGEST


@pytest.mark.parametrize("role", ["targets", "root"])
def test_18_19_one_of_three_offline_keys_is_stolen(
    plant: Plant, thief: Thief, current: ReleaseClient, role: str
) -> None:
    data = thief.resign(role, plant.keys.offline(role)[:1], nothing)
    if role == "targets":
        thief.list_role(role, data)
    refused(current, ReportReason.SIGNATURE)


def test_20_a_repeated_signature_does_not_make_a_threshold(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    data = json.loads(thief.resign("targets", plant.keys.offline("targets")[:1], nothing))
    data["signatures"] *= 2
    forged = json.dumps(data).encode()
    (plant.folder / "metadata" / f"{thief.newest('targets')}.targets.json").write_bytes(forged)
    thief.seal(_listing("targets", thief.newest("targets"), forged))
    refused(current, ReportReason.TAMPERED)


def test_21_a_skipped_root_version(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    thief.resign("root", plant.keys.offline("root"), nothing, step=2)
    metadata = plant.folder / "metadata"
    (metadata / "3.root.json").rename(metadata / "2.root.json")
    refused(current, ReportReason.ROLLBACK)


def test_22_a_hidden_root_is_an_error_not_an_answer(current: ReleaseClient, stage: Stage) -> None:
    stage.lies["metadata/2.root.json"] = body(b"", status=500)
    with pytest.raises(TransientError):
        current.check(LINE, "stable")


def test_22_a_broken_backend_answers_5xx_and_no_404(plant: Plant, current: ReleaseClient) -> None:
    shutil.rmtree(plant.folder / "metadata")
    with pytest.raises(TransientError, match="503"):
        current.check(LINE, "stable")


def test_23_a_hidden_root_rotation_shows_by_its_signatures(
    plant: Plant, current: ReleaseClient, stage: Stage, new_online: OnlineSigners
) -> None:
    plant.repository.replace_online_keys(plant.keys.offline("root"), new_online)
    stage.lies["metadata/2.root.json"] = body(b"", status=404)
    refused(current, ReportReason.SIGNATURE)


def test_24_a_key_rotation_is_followed(plant: Plant, current: ReleaseClient, new_online: OnlineSigners) -> None:
    plant.repository.replace_online_keys(plant.keys.offline("root"), new_online)
    assert current.check(LINE, "stable").release == 1


def test_25_a_revoked_key_signs_on(
    plant: Plant, thief: Thief, current: ReleaseClient, new_online: OnlineSigners
) -> None:
    plant.repository.replace_online_keys(plant.keys.offline("root"), new_online)
    current.check(LINE, "stable")
    thief.resign("timestamp", [plant.keys.signer("timestamp")], nothing)
    refused(current, ReportReason.SIGNATURE)


def test_26_fast_forward_then_recovery(
    plant: Plant, thief: Thief, current: ReleaseClient, new_online: OnlineSigners, tmp_path: Path
) -> None:
    honest = save(plant, tmp_path)
    thief.resign("timestamp", [plant.keys.signer("timestamp")], nothing, step=2**31)
    current.check(LINE, "stable")
    replay(plant, honest)
    plant.repository.renew_timestamp(plant.keys.online())
    refused(current, ReportReason.ROLLBACK)
    plant.repository.replace_online_keys(plant.keys.offline("root"), new_online)
    assert current.check(LINE, "stable").release == 1


def test_26_the_floors_are_up_again_after_the_recovery(
    plant: Plant, current: ReleaseClient, box: Box, new_online: OnlineSigners, tmp_path: Path
) -> None:
    plant.repository.replace_online_keys(plant.keys.offline("root"), new_online)
    current.check(LINE, "stable")
    old = save(plant, tmp_path)
    plant.repository.renew_timestamp(new_online)
    current.check(LINE, "stable")
    _power_cut(tmp_path / "box" / "metadata")
    replay(plant, old)
    refused(box(), ReportReason.ROLLBACK)


@pytest.mark.parametrize(
    "path", ["adapter/cells/../../etc/passwd", "/etc/passwd", "adapter/cells/A", "adapter/cells/a\u0000b"]
)
def test_28_path_traversal(plant: Plant, thief: Thief, current: ReleaseClient, path: str) -> None:
    document = json.loads(plant.channel(2).encode())
    document["adapter"]["path"] = path
    thief.channel(json.dumps(document).encode())
    with pytest.raises(RefusedError) as caught:
        current.check(LINE, "stable")
    assert caught.value.reason in {ReportReason.TAMPERED, ReportReason.WRONG_LINE}
    assert current.unforeseen == 0


def test_29_a_power_cut_empties_the_cache_and_an_old_repository_is_replayed(
    plant: Plant, current: ReleaseClient, box: Box, tmp_path: Path
) -> None:
    old = save(plant, tmp_path)
    plant.release(2)
    current.check(LINE, "stable")
    replay(plant, old)
    _power_cut(tmp_path / "box" / "metadata")
    refused(box(), ReportReason.ROLLBACK)


def test_29_one_torn_floor_copy_loses_nothing(plant: Plant, current: ReleaseClient, box: Box, tmp_path: Path) -> None:
    old = save(plant, tmp_path)
    plant.release(2)
    current.check(LINE, "stable")
    replay(plant, old)
    _power_cut(tmp_path / "box" / "metadata")
    floors = tmp_path / "box" / "floors" / "a.json"
    floors.write_bytes(floors.read_bytes()[:50])
    refused(box(), ReportReason.ROLLBACK)


def test_30_the_root_link_is_gone(current: ReleaseClient, box: Box, tmp_path: Path) -> None:
    (tmp_path / "box" / "metadata" / "root.json").unlink()
    assert box().check(LINE, "stable").release == 1


def test_32_the_clock_says_1970(plant: Plant, current: ReleaseClient) -> None:
    plant.clock.at = datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(BlockedError, match="clock_behind") as caught:
        current.check(LINE, "stable")
    assert caught.value.reason is ReportReason.CLOCK


def test_32_the_clock_says_1970_at_first_contact(plant: Plant, box: Box) -> None:
    plant.clock.at = datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(BlockedError, match="clock_behind"):
        box().check(LINE, "stable")


def test_32_a_clock_ahead_is_told_from_a_freeze(plant: Plant, current: ReleaseClient, stage: Stage) -> None:
    stamp = (plant.folder / "metadata" / "timestamp.json").read_bytes()
    date = (T0 + timedelta(minutes=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    stage.lies["metadata/timestamp.json"] = body(stamp, headers={"date": date})
    plant.clock.forward(days=3)
    with pytest.raises(BlockedError, match="clock_ahead"):
        current.check(LINE, "stable")


def test_33_slow_drip_of_a_blob(plant: Plant, box: Box, stage: Stage) -> None:
    client = box(limits=Limits(rate_window_s=0.3, min_rate=10_000))
    channel = client.check(LINE, "stable")
    path = next(p for p in plant.everything() if p.endswith("r000001.onnx_adapter"))
    stage.lies[path] = chunked(_drip)
    with pytest.raises(TransientError, match="below 10000 B/s"):
        client.fetch(channel)


def test_33_slow_drip_of_metadata(current: ReleaseClient, box: Box, stage: Stage) -> None:
    stage.lies["metadata/timestamp.json"] = chunked(_drip)
    began = time.monotonic()
    with pytest.raises(TransientError, match=r"longer than 0\.5 s"):
        box(limits=Limits(metadata_total_s=0.5)).check(LINE, "stable")
    assert time.monotonic() - began < 5


def test_33_a_server_that_says_nothing(current: ReleaseClient, box: Box, stage: Stage) -> None:
    async def silent(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await asyncio.sleep(1)

    stage.lies["metadata/timestamp.json"] = silent
    with pytest.raises(TransientError):
        box(limits=Limits(metadata_total_s=0.3)).check(LINE, "stable")


def test_35_a_release_of_another_line(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    plant.add_adapter(9, line=OTHER_LINE)
    plant.release(9, line=OTHER_LINE)
    thief.channel(plant.channel(9, line=OTHER_LINE).encode())
    refused(current, ReportReason.WRONG_LINE)


def test_35_another_lines_adapter(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    plant.add_adapter(9, line=OTHER_LINE)
    plant.release(9, line=OTHER_LINE)
    thief.channel(
        plant.channel(2, adapter=2).model_copy(update={"adapter": plant.repository.adapter_ref(OTHER_LINE, 9)}).encode()
    )
    refused(current, ReportReason.WRONG_LINE)


def test_35_an_adapter_for_another_base(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    plant.add_base(2)
    thief.channel(plant.channel(2, base_version=2).encode())
    channel = current.check(LINE, "stable")
    with pytest.raises(RefusedError) as caught:
        current.fetch(channel)
    assert caught.value.reason is ReportReason.WRONG_BASE


def test_39_a_stolen_channel_key_picks_an_unapproved_adapter(
    plant: Plant, thief: Thief, current: ReleaseClient
) -> None:
    own = TargetRef(path=f"adapter/{LINE}/r000066.manifest.json", sha256="6" * 64, length=66)
    thief.channel(plant.channel(2).model_copy(update={"adapter": own}).encode())
    refused(current, ReportReason.SIGNATURE)


def test_39_a_stolen_channel_key_lowers_the_release(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    plant.release(3)
    current.check(LINE, "stable")
    thief.channel(plant.channel(2).encode())
    refused(current, ReportReason.ROLLBACK)


def test_39_a_stolen_channel_key_gives_a_number_another_model(
    plant: Plant, thief: Thief, current: ReleaseClient
) -> None:
    thief.channel(plant.channel(1, adapter=2).encode())
    refused(current, ReportReason.TAMPERED)


def test_39_a_stolen_channel_key_selects_what_was_revoked(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    bad = plant.repository.adapter_ref(LINE, 2).sha256
    plant.release(3, revoked=[bad], min_release=3)
    current.check(LINE, "stable")
    assert current.revoked(LINE) == {bad}
    assert current.min_release(LINE) == 3
    thief.channel(plant.channel(4, adapter=2).encode())
    refused(current, ReportReason.REVOKED)


def test_39_a_channel_that_revokes_its_own_adapter_is_refused_and_remembered(
    plant: Plant, thief: Thief, current: ReleaseClient
) -> None:
    bad = plant.repository.adapter_ref(LINE, 2).sha256
    thief.channel(plant.channel(3, adapter=2, revoked=[bad]).encode())
    refused(current, ReportReason.REVOKED)
    assert current.revoked(LINE) == {bad}
    thief.channel(plant.channel(4, adapter=2).encode())
    refused(current, ReportReason.REVOKED)


def test_39_the_channel_vanishes(thief: Thief, plant: Plant, current: ReleaseClient) -> None:
    role = f"channel-{LINE}"
    thief.list_role(role, thief.resign(role, [plant.keys.signer("channel")], lambda m: m.signed.targets.clear()))
    refused(current, ReportReason.TAMPERED)


def test_39_a_target_listed_by_another_hash(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    role = f"channel-{LINE}"

    def relist(metadata: Metadata) -> None:
        metadata.signed.targets[f"channel/{LINE}/stable.json"].hashes = {"sha512": "0" * 128}

    thief.list_role(role, thief.resign(role, [plant.keys.signer("channel")], relist))
    refused(current, ReportReason.TAMPERED)


def test_40_the_trainers_key_alone(plant: Plant, thief: Thief, current: ReleaseClient) -> None:
    role = f"adapter-{LINE}"
    change = thief.put_target(f"adapter/{LINE}/r000007.manifest.json", b"{}")
    thief.list_role(role, thief.resign(role, [plant.keys.signer("trainer")], change))
    refused(current, ReportReason.SIGNATURE)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"schema_version": 99}', b"\xff\xfe", b'{"a":1,"a":2}'])
def test_41_a_signed_channel_that_cannot_be_parsed(thief: Thief, current: ReleaseClient, content: bytes) -> None:
    thief.channel(content)
    with pytest.raises(RefusedError) as caught:
        current.check(LINE, "stable")
    assert caught.value.reason is ReportReason.TAMPERED
    assert current.unforeseen == 0


def test_42_a_blob_changed_on_disk(plant: Plant, current: ReleaseClient) -> None:
    sha = next(s for s in _stored(current) if current.blobs.read(s) == adapter_blobs(1)["head"])
    path = current.blobs.path(sha)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(SecurityError) as caught:
        current.blobs.read(sha)
    assert caught.value.reason is ReportReason.TAMPERED


def test_43_both_floors_are_gone(current: ReleaseClient, box: Box, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / "box" / "floors" / name).unlink()
    refused(box(), ReportReason.TAMPERED)


def test_43_all_state_is_gone_on_a_box_that_ran_a_release(current: ReleaseClient, box: Box, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "box")
    refused(box(provisioned=True), ReportReason.TAMPERED)


def test_43_all_state_vanishes_while_the_first_run_goes_on(current: ReleaseClient, tmp_path: Path) -> None:
    for name in ("floors", "metadata", "blobs"):
        shutil.rmtree(tmp_path / "box" / name)
        (tmp_path / "box" / name).mkdir()
    refused(current, ReportReason.TAMPERED)


def test_43_a_new_box_is_no_alarm(box: Box) -> None:
    assert box().check(LINE, "stable").release == 1


@pytest.fixture
def new_online(keys: KeyFolder) -> OnlineSigners:
    fresh = CryptoSigner.generate_ed25519
    return OnlineSigners(channel=keys.signer("channel"), snapshot=fresh(), timestamp=fresh())


def _stored(client: ReleaseClient) -> list[str]:
    return [path.name for path in client.blobs.folder.glob("??/*")]


def _power_cut(cache: Path) -> None:
    for path in cache.rglob("*.json"):
        if not path.is_symlink():
            path.write_bytes(b"\0" * path.stat().st_size)


def _name_snapshot(thief: Thief, data: bytes) -> None:
    version = thief.newest("snapshot")

    def named(metadata: Metadata) -> None:
        metadata.signed.snapshot_meta = _meta(version, data)

    thief.resign("timestamp", [thief.plant.keys.signer("timestamp")], named)


def _listing(role: str, version: int, data: bytes) -> Callable[[Metadata], None]:
    def change(metadata: Metadata) -> None:
        metadata.signed.meta[f"{role}.json"] = _meta(version, data)

    return change


def _meta(version: int, data: bytes) -> Any:
    from tuf.api.metadata import MetaFile

    return MetaFile.from_data(version, data, ["sha256"])


async def _endless() -> Any:
    for _ in range(200):
        yield b"x" * 100_000
        await asyncio.sleep(0)


async def _drip() -> Any:
    for _ in range(100):
        yield b"x"
        await asyncio.sleep(0.05)
