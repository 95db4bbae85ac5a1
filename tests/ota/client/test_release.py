"""The good path: what is published arrives, once, and survives interruptions and restarts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.contracts.control import ReportReason
from ota.client import Limits, ReleaseClient
from ota.errors import BlockedError, TransientError
from tests.ota.kit import LINE, OTHER_LINE, Plant, adapter_blobs, base_contents
from tests.ota.stage import Stage, body

Box = Callable[..., ReleaseClient]


def test_what_was_published_arrives_byte_for_byte(plant: Plant, box: Box) -> None:
    client = box()
    channel = client.check(LINE, "stable")
    release = client.fetch(channel)
    assert channel == plant.channel(1, created_at=channel.created_at)
    assert release.adapter.release == 1
    for data in (*adapter_blobs(1).values(), *base_contents(1).values()):
        assert any(client.blobs.read(sha) == data for sha in release.digests())


def test_nothing_is_fetched_twice(plant: Plant, box: Box, stage: Stage) -> None:
    client = box()
    client.fetch(client.check(LINE, "stable"))
    stage.requests.clear()
    again = box()
    again.fetch(again.check(LINE, "stable"))
    assert again.bytes_received == 0
    assert stage.requests == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_fetch_needs_no_network_when_everything_is_here(plant: Plant, box: Box) -> None:
    client = box()
    channel = client.check(LINE, "stable")
    client.fetch(channel)
    offline = box(url="http://127.0.0.1:9")
    assert offline.fetch(channel).adapter.release == 1


def test_a_new_adapter_costs_only_its_own_bytes(plant: Plant, box: Box) -> None:
    client = box()
    client.fetch(client.check(LINE, "stable"))
    plant.release(2)
    before = client.bytes_received
    client.fetch(client.check(LINE, "stable"))
    assert client.bytes_received - before < 3 * 3_000 + 4_000


def test_rollback_is_a_higher_release_and_downloads_no_blob(plant: Plant, box: Box, stage: Stage) -> None:
    client = box()
    client.fetch(client.check(LINE, "stable"))
    plant.release(2)
    client.fetch(client.check(LINE, "stable"))
    plant.release(3, adapter=1, rollback_of=2, reason="misses cracks")
    stage.requests.clear()
    release = client.fetch(client.check(LINE, "stable"))
    assert (release.channel.release, release.adapter.release) == (3, 1)
    assert stage.count("targets/adapter/") == stage.count("targets/base/") == 0


def test_an_unchanged_chunk_of_the_next_base_is_copied_not_fetched(plant: Plant, box: Box, stage: Stage) -> None:
    client = box()
    client.fetch(client.check(LINE, "stable"))
    plant.add_base(2)
    plant.add_adapter(4, base_version=2)
    plant.release(4, base_version=2)
    stage.requests.clear()
    release = client.fetch(client.check(LINE, "stable"))
    assert stage.count("targets/base/nano-mono/chunks/") == 1
    assert client.blobs.read(release.base.file("trunk").sha256) == base_contents(2)["trunk.onnx"]


def test_two_lines_share_one_repository(plant: Plant, box: Box) -> None:
    plant.add_adapter(1, line=OTHER_LINE)
    plant.release(1, line=OTHER_LINE)
    client = box()
    assert client.fetch(client.check(OTHER_LINE, "stable")).adapter.line == OTHER_LINE


def test_a_line_without_a_release_is_no_alarm_and_later_gets_one(plant: Plant, box: Box) -> None:
    for _ in range(2):
        with pytest.raises(TransientError, match="no release for line frames"):
            box().check(OTHER_LINE, "stable")
    plant.add_adapter(1, line=OTHER_LINE)
    plant.release(1, line=OTHER_LINE)
    assert box().check(OTHER_LINE, "stable").release == 1


def test_a_broken_download_is_resumed_by_range(plant: Plant, box: Box, stage: Stage) -> None:
    client = box()
    channel = client.check(LINE, "stable")
    data = adapter_blobs(1)["onnx_adapter"]
    path = next(p for p in plant.everything() if p.endswith("r000001.onnx_adapter"))
    sha = path.rsplit("/", 1)[1].split(".")[0]
    stage.lies[path] = _cut(data, after=1_000, etag=f'"{sha}"')
    with pytest.raises(TransientError):
        client.fetch(channel)
    del stage.lies[path]
    assert client.blobs.part(sha).stat().st_size == 1_000
    stage.requests.clear()
    stage.headers.clear()
    restarted = box()
    restarted.fetch(channel)
    asked = stage.headers[stage.requests.index(path)]
    assert asked[b"range"] == b"bytes=1000-"
    assert asked[b"if-range"] == f'"{sha}"'.encode()
    assert restarted.blobs.read(sha) == data


def test_a_changed_etag_starts_again_instead_of_mixing(plant: Plant, box: Box, stage: Stage) -> None:
    client = box()
    channel = client.check(LINE, "stable")
    data = adapter_blobs(1)["head"]
    path = next(p for p in plant.everything() if p.endswith("r000001.head"))
    stage.lies[path] = _cut(b"x" * 3_000, after=500, etag='"another"')
    with pytest.raises(TransientError):
        client.fetch(channel)
    del stage.lies[path]
    release = client.fetch(channel)
    assert client.blobs.read(release.adapter.head.blob.sha256) == data


def test_an_interrupted_base_keeps_its_whole_chunks(plant: Plant, box: Box, stage: Stage) -> None:
    client = box()
    channel = client.check(LINE, "stable")
    chunks = [p for p in plant.everything() if "/chunks/" in p]
    data = base_contents(1)["trunk.onnx"]
    last = next(p for p in chunks if (plant.folder / p).read_bytes() == data[30_000:])
    stage.lies[last] = body(b"busy", status=503)
    with pytest.raises(TransientError, match="503"):
        client.fetch(channel)
    del stage.lies[last]
    stage.requests.clear()
    box().fetch(channel)
    assert stage.count("targets/base/nano-mono/chunks/") == 1


@pytest.mark.parametrize("trouble", [500, 503, 429])
def test_a_server_in_trouble_is_retried_later(plant: Plant, box: Box, stage: Stage, trouble: int) -> None:
    stage.lies["metadata/timestamp.json"] = body(b"", status=trouble)
    with pytest.raises(TransientError):
        box().check(LINE, "stable")
    stage.lies.clear()
    assert box().check(LINE, "stable").release == 1


def test_a_server_that_is_away_is_retried_later(box: Box) -> None:
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:9"):
        box(url="http://127.0.0.1:9").check(LINE, "stable")


def test_a_full_disk_blocks_before_the_first_byte(plant: Plant, box: Box, stage: Stage) -> None:
    client = box(fs=_FullDisk())
    channel = client.check(LINE, "stable")
    with pytest.raises(BlockedError) as blocked:
        client.fetch(channel)
    assert blocked.value.reason is ReportReason.DISK_FULL
    assert blocked.value.free == 1000 < blocked.value.needed
    assert stage.count("targets/base/nano-mono/chunks") == 0


def test_a_damaged_blob_is_fetched_again(plant: Plant, box: Box) -> None:
    client = box()
    release = client.fetch(client.check(LINE, "stable"))
    path = client.blobs.path(release.adapter.head.blob.sha256)
    path.write_bytes(b"\0" * path.stat().st_size)
    again = client.fetch(release.channel)
    assert client.blobs.read(again.adapter.head.blob.sha256) == adapter_blobs(1)["head"]


def test_only_one_process_updates(plant: Plant, box: Box) -> None:
    first, second = box(), box()
    with first._alone(), pytest.raises(TransientError, match="another process"):
        second.check(LINE, "stable")


def test_widening_the_plan_keeps_the_number(plant: Plant, box: Box) -> None:
    client = box()
    client.check(LINE, "stable")
    plan = {"salt": "s", "waves": [{"percent": 5}, {"percent": 100}], "wave": 1}
    plant.repository.publish(plant.channel(1, plan=plan), plant.keys.online())
    assert client.check(LINE, "stable").plan.wave == 1


def test_limits_have_the_documented_defaults() -> None:
    assert (Limits().min_rate, Limits().rate_window_s) == (32 << 10, 60.0)


class _FullDisk:
    """The real disk, but with no room."""

    def __getattr__(self, name: str) -> object:
        from models.disk import REAL_FS

        return getattr(REAL_FS, name)

    def free_bytes(self, _: object) -> int:
        return 1000


def _cut(data: bytes, *, after: int, etag: str) -> object:
    """Announce all of `data`, send the first bytes, then end the connection."""

    async def lie(scope: object, receive: object, send: object) -> None:
        headers = [(b"content-length", str(len(data)).encode()), (b"etag", etag.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data[:after], "more_body": True})
        raise ConnectionError("the cable was pulled")

    return lie
