"""A repository folder over HTTP on loopback; single paths can be made to lie."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Stage:
    """`lies` maps a path below the root to the bytes served in place of the file's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lies: dict[str, bytes] = {}
        self.url = ""

    def content(self, path: str) -> bytes | None:
        name = path.lstrip("/")
        if name in self.lies:
            return self.lies[name]
        file = self.folder / name
        return file.read_bytes() if file.is_file() else None


@contextmanager
def served(folder: Path) -> Iterator[Stage]:
    stage = Stage(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = stage.content(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stage.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stage
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
