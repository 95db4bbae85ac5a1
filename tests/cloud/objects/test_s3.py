"""The S3 store: a real `weed mini`, and servers that are away, silent or mad."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.objects import DigestConflict, ObjectMissing, StoreUnavailable
from cloud.objects.s3 import S3Objects
from models.contracts.base import sha256_hex
from simulators.servers.children import Servers
from simulators.servers.store import Store, start_store

DATA = b"some image bytes"
SHA = sha256_hex(DATA)


def client(endpoint: str, key: str = "a", secret: str = "b", bucket: str = "edgeloop") -> S3Objects:
    return S3Objects(endpoint=endpoint, access_key=key, secret_key=secret, bucket=bucket, timeout_s=0.5)


def every_call(store: S3Objects) -> list[object]:
    return [
        lambda: store.put_once("k", DATA, sha256=SHA, content_type="image/png"),
        lambda: store.read("k"),
        lambda: store.stat("k"),
        lambda: store.delete("k"),
        lambda: list(store.list("")),
        store.ensure_bucket,
    ]


def test_nobody_listening_is_unavailable_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = client(f"127.0.0.1:{port}")
    began = time.monotonic()
    for call in every_call(store):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            call()  # type: ignore[operator]
    assert time.monotonic() - began < 10
    store.close()


def test_a_silent_server_is_unavailable_within_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        store = client(f"127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.stat("k")
        assert time.monotonic() - began < 4
        store.close()


def test_the_reason_is_said_in_plain_words() -> None:
    """What urllib3 says of itself (pools, retries, classes) helps nobody to mend it."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        silent = f"127.0.0.1:{deaf.getsockname()[1]}"
        assert why(silent) == "no answer in time"
    assert why("127.0.0.1:1") == "Connection refused"


def why(endpoint: str) -> str:
    store = client(endpoint)
    with pytest.raises(StoreUnavailable) as caught:
        store.ensure_bucket()
    store.close()
    start, end = f"object store {endpoint} cannot be reached (", "): check that it runs, and objects.endpoint and "
    said = str(caught.value)
    assert said.startswith(start)
    assert end in said
    return said.removeprefix(start).partition(end)[0]


@pytest.fixture
def answering() -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives the same raw answer to whoever asks."""
    answer: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        server.settimeout(0.1)
        while not over.is_set():
            try:
                peer, _ = server.accept()
            except TimeoutError:
                continue
            with peer:
                peer.settimeout(1)
                peer.recv(65_536)
                peer.sendall(answer[0])

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}", answer
    over.set()
    thread.join()
    server.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 503 SlowDown\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nConnection: close\r\n\r\nhalf",
        b"no HTTP at all\r\n\r\n",
    ],
)
def test_a_mad_server_is_unavailable_never_a_crash(answering: tuple[str, list[bytes]], answer: bytes) -> None:
    endpoint, answers = answering
    answers.append(answer)
    store = client(endpoint)
    with pytest.raises(StoreUnavailable):
        store.read("k")
    store.close()


def test_bytes_under_a_wrong_digest_are_refused_before_they_travel() -> None:
    with pytest.raises(ValueError, match="digest"):
        client("127.0.0.1:1").put_once("k", DATA, sha256="0" * 64, content_type="x")


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder: Path = tmp_path_factory.mktemp("weed")
    with Servers(folder / "logs") as servers:
        yield start_store(servers, folder / "data")


@pytest.mark.servers
def test_the_port_on_a_real_server(weed: Store) -> None:
    store = S3Objects(
        endpoint=weed.endpoint, access_key=weed.access_key, secret_key=weed.secret_key, bucket="fresh", timeout_s=10
    )
    store.ensure_bucket()
    store.ensure_bucket()
    assert store.stat("samples/aa/x") is None
    with pytest.raises(ObjectMissing):
        store.read("samples/aa/x")
    for _ in range(2):
        store.put_once("samples/aa/x", DATA, sha256=SHA, content_type="image/png")
    info = store.stat("samples/aa/x")
    assert info is not None
    assert (info.size, info.sha256, info.content_type) == (len(DATA), SHA, "image/png")
    assert store.read("samples/aa/x") == DATA
    other = b"other bytes, size differs"
    with pytest.raises(DigestConflict):
        store.put_once("samples/aa/x", other, sha256=sha256_hex(other), content_type="image/png")
    same_size = bytes(reversed(DATA))
    with pytest.raises(DigestConflict):
        store.put_once("samples/aa/x", same_size, sha256=sha256_hex(same_size), content_type="image/png")
    assert store.read("samples/aa/x") == DATA
    large = bytes(range(256)) * 40_000  # above minio's part size: still one request, so the etag is an MD5
    store.put_once("blobs/large", large, sha256=sha256_hex(large), content_type="application/octet-stream")
    assert store.read("blobs/large") == large
    assert [item.key for item in store.list("samples/")] == ["samples/aa/x"]
    store.delete("samples/aa/x")
    store.delete("samples/aa/x")
    assert store.stat("samples/aa/x") is None
    store.close()


@pytest.mark.servers
def test_the_first_write_makes_the_bucket(weed: Store) -> None:
    store = client(weed.endpoint, key=weed.access_key, secret=weed.secret_key, bucket="made-by-a-write")
    assert store.stat("k") is None
    store.put_once("k", DATA, sha256=SHA, content_type="image/png")
    assert store.read("k") == DATA
    store.close()


@pytest.mark.servers
def test_wrong_credentials_say_which_setting(weed: Store) -> None:
    store = client(weed.endpoint, key=weed.access_key, secret="wrong", bucket=weed.bucket)
    with pytest.raises(StoreUnavailable, match=r"objects\.access_key"):
        store.read("k")
    store.close()
