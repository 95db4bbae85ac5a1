"""Presigned PUT against a small HTTP server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from edge_agent.uplink.presigned import PutFailed, put_object
from models.contracts.uplink import Put
from tests.edge_agent.spool.envelopes import START

Seen = list[tuple[str, str | None, bytes]]


@pytest.fixture
def store() -> Iterator[tuple[str, Seen]]:
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["x-amz-acl"], body))
            status = int(self.path.split("/")[1])
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/200/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()
    thread.join(5)


def order(url: str) -> Put:
    return Put(url=url, headers={"x-amz-acl": "private"}, expires_at=START)


def test_the_whole_image_goes_with_the_given_headers(store: tuple[str, Seen]) -> None:
    url, seen = store
    put_object(order(f"{url}/200/key?sig=1"), b"image", 5.0)
    assert seen == [("/200/key?sig=1", "private", b"image")]


@pytest.mark.parametrize("status", [302, 403, 412, 500, 503])
def test_anything_but_2xx_is_a_failure_and_no_redirect_is_followed(store: tuple[str, Seen], status: int) -> None:
    url, seen = store
    with pytest.raises(OSError, match=str(status)):
        put_object(order(f"{url}/{status}/key"), b"image", 5.0)
    assert len(seen) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/tmp/x", "http://"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises((PutFailed, OSError)):
        put_object(order(url), b"image", 1.0)


def test_a_store_that_is_not_there(store: tuple[str, Seen]) -> None:
    with pytest.raises(OSError, match=r"refused|urlopen"):
        put_object(order("http://127.0.0.1:9/x"), b"image", 1.0)
