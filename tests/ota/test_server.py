"""The release server's headers and statuses."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import httpx
import pytest

from ota.keys import KeyFolder
from tests.ota.kit import LINE, OTHER_LINE, Plant, adapter_blobs
from tests.ota.stage import Server, Stage


@pytest.fixture
def head(plant: Plant) -> str:
    return next(path for path in plant.everything() if path.endswith("r000001.head"))


def test_a_hashed_name_is_immutable_and_its_etag_is_the_digest(stage: Stage, head: str) -> None:
    answer = httpx.get(f"{stage.url}/{head}")
    data = adapter_blobs(1)["head"]
    assert answer.content == data
    assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert "immutable" in answer.headers["cache-control"]


def test_versioned_metadata_is_immutable_and_the_timestamp_is_not(stage: Stage) -> None:
    assert "immutable" in httpx.get(f"{stage.url}/metadata/1.root.json").headers["cache-control"]
    fresh = httpx.get(f"{stage.url}/metadata/timestamp.json")
    assert int(fresh.headers["cache-control"].rsplit("=", 1)[1]) <= 30
    assert not fresh.headers["etag"].startswith("W/")


def test_the_timestamps_etag_follows_its_content(plant: Plant, stage: Stage) -> None:
    url = f"{stage.url}/metadata/timestamp.json"
    before = httpx.get(url).headers["etag"]
    plant.repository.renew_timestamp(plant.keys.online())
    assert httpx.get(url).headers["etag"] != before


def test_ranges(stage: Stage, head: str) -> None:
    data, url = adapter_blobs(1)["head"], f"{stage.url}/{head}"
    part = httpx.get(url, headers={"Range": "bytes=1000-"})
    assert (part.status_code, part.content) == (206, data[1000:])
    assert part.headers["content-range"] == f"bytes 1000-{len(data) - 1}/{len(data)}"
    other = httpx.get(url, headers={"Range": "bytes=1000-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, data)
    assert httpx.get(url, headers={"Range": "bytes=999999-"}).status_code == 416


def test_a_missing_file_is_404_and_must_not_be_cached(stage: Stage) -> None:
    answer = httpx.get(f"{stage.url}/metadata/2.root.json")
    assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")


@pytest.mark.parametrize("gone", ["metadata", "targets", "."])
def test_a_broken_repository_is_never_404(plant: Plant, stage: Stage, gone: str) -> None:
    shutil.rmtree(plant.folder / gone)
    for path in ("metadata/2.root.json", "metadata/timestamp.json", "targets/adapter/cells/x", "health"):
        answer = httpx.get(f"{stage.url}/{path}")
        assert answer.status_code in ({503, 200} if path == "metadata/timestamp.json" and gone == "targets" else {503})


def test_a_new_repository_without_any_target_is_healthy(tmp_path: Path, keys: KeyFolder, server: Server) -> None:
    plant = Plant(tmp_path / "new", keys)
    plant.repository.create(keys, [LINE, OTHER_LINE])
    url = server.show(plant.folder).url
    assert httpx.get(f"{url}/health").status_code == 200
    assert httpx.get(f"{url}/metadata/2.root.json").status_code == 404


def test_a_timestamp_without_content_is_a_broken_repository(plant: Plant, stage: Stage) -> None:
    (plant.folder / "metadata" / "timestamp.json").write_bytes(b"")
    assert httpx.get(f"{stage.url}/metadata/2.root.json").status_code == 503


@pytest.mark.parametrize(
    "path", ["../keys.json", ".lock", "metadata/../.lock", "metadata/.x", "metadata", "etc/passwd"]
)
def test_nothing_else_is_served(plant: Plant, stage: Stage, path: str) -> None:
    (plant.folder / "metadata" / ".x").write_bytes(b"hidden")
    with httpx.Client() as client:
        request = client.build_request("GET", stage.url)
        request.url = request.url.copy_with(raw_path=f"/{path}".encode())
        assert client.send(request).status_code == 404


def test_only_reading_is_allowed(stage: Stage) -> None:
    assert httpx.post(f"{stage.url}/metadata/timestamp.json").status_code == 405
    assert httpx.head(f"{stage.url}/metadata/timestamp.json").status_code == 200
