"""A real HTTP server on loopback that serves a repository, and lies about single paths when a test says so."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from ota.server import create_app

Lie = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class Stage:
    """ASGI application: the honest server, but for the paths in `lies`. Counts requests per path."""

    def __init__(self, repository: Path) -> None:
        self.lies: dict[str, Lie] = {}
        self.requests: list[str] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.url = ""
        self._honest = create_app(repository)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope["path"].lstrip("/")
        self.requests.append(path)
        self.headers.append(dict(scope["headers"]))
        await self.lies.get(path, self._honest)(scope, receive, send)

    def count(self, prefix: str) -> int:
        return sum(path.startswith(prefix) for path in self.requests)


def body(data: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Lie:
    """Answer with these bytes and their true length."""

    async def lie(scope: dict[str, Any], receive: Any, send: Any) -> None:
        sent = {"content-length": str(len(data)), **(headers or {})}
        raw = [(name.encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": data})

    return lie


def chunked(pieces: Callable[[], Any]) -> Lie:
    """Answer with a stream of unknown length; `pieces` is an async generator function."""

    async def lie(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            async for piece in pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except OSError:
            return
        await send({"type": "http.response.body", "body": b""})

    return lie


class Server:
    """One HTTP server for a whole test run; each test puts its own stage on it."""

    def __init__(self) -> None:
        self.url = ""
        self._stage: Stage | None = None

    def show(self, repository: Path) -> Stage:
        self._stage = Stage(repository)
        self._stage.url = self.url
        return self._stage

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert self._stage is not None
        await self._stage(scope, receive, send)


@contextmanager
def serving() -> Iterator[Server]:
    """The server on a free loopback port."""
    shown = Server()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        shown.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            shown, log_config=None, access_log=False, date_header=False, lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.005)
        try:
            yield shown
        finally:
            server.should_exit = True
            thread.join(10)
