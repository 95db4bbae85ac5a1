"""The release server: the repository folder over HTTP, as it lies, with Range, strong ETags and honest statuses.

It holds no key and needs no trust. Names with a version or a digest never change and may be cached for ever; the
timestamp for seconds only. A missing file is 404 only while the repository itself is readable: boxes take a 404 on
the next root as "there is none", so a broken disk must answer 503. TLS and authentication are a proxy's work.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import signal
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

IMMUTABLE = "public, max-age=31536000, immutable"
BRIEF = "public, max-age=5"
_PART = r"[A-Za-z0-9%_-][A-Za-z0-9%._-]*"
_PATH = re.compile(rf"(?:metadata/{_PART}|targets(?:/{_PART}){{1,5}})")
_DIGEST = re.compile(r"(?:[^/]*/)*([0-9a-f]{64})(?:\.[^/]*)?")
HASHED_WHOLE = 8 << 20
"""Metadata is smaller than this; only its ETag needs reading the file, since targets carry their digest in the name."""

log = logging.getLogger(__name__)


class Unhealthy(Exception):
    """The repository cannot be read: answer 503 and say so in the log."""


def create_app(repository: Path) -> Starlette:
    """The application for one repository folder."""

    async def answer(request: Request) -> Response:
        path = request.path_params["path"]
        try:
            return await anyio.to_thread.run_sync(_respond, repository, path)
        except (Unhealthy, OSError) as fault:
            log.error("cannot serve %s: %s", path, fault)  # noqa: TRY400 - one line names the fault; no bug to trace
            headers = {"Cache-Control": "no-store", "Retry-After": "10"}
            return PlainTextResponse("repository not readable\n", status_code=503, headers=headers)

    async def health(_: Request) -> Response:
        healthy = await anyio.to_thread.run_sync(_healthy, repository)
        return PlainTextResponse(
            "ok\n" if healthy else "repository not readable\n", status_code=200 if healthy else 503
        )

    return Starlette(routes=[Route("/health", health), Route("/{path:path}", answer)])


def serve(repository: Path, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; logs are JSON lines on stderr."""
    _log_as_json()
    signal.signal(signal.SIGTERM, _stopped)
    signal.signal(signal.SIGINT, _stopped)
    config = uvicorn.Config(create_app(repository), host=host, port=port, log_config=None, access_log=False)
    log.info("serving %s on http://%s:%d", repository, host, port)
    uvicorn.Server(config).run()


def _respond(repository: Path, path: str) -> Response:
    if not _PATH.fullmatch(path):
        return _missing()
    file = repository / path
    try:
        found = file.stat()
    except FileNotFoundError:
        if not _healthy(repository):
            raise Unhealthy(f"{repository} has no readable timestamp") from None
        return _missing()
    if not stat.S_ISREG(found.st_mode):
        return _missing()
    headers = {"ETag": _etag(file, path), "Cache-Control": _cache(path)}
    media = "application/json" if path.endswith(".json") else "application/octet-stream"
    return FileResponse(file, headers=headers, media_type=media, stat_result=found)


def _healthy(repository: Path) -> bool:
    try:
        with (repository / "metadata" / "timestamp.json").open("rb") as file:
            return (repository / "targets").is_dir() and bool(file.read(1))
    except OSError:
        return False


def _missing() -> Response:
    return PlainTextResponse("not found\n", status_code=404, headers={"Cache-Control": "no-store"})


def _cache(path: str) -> str:
    return BRIEF if path == "metadata/timestamp.json" else IMMUTABLE


def _etag(file: Path, path: str) -> str:
    named = _DIGEST.fullmatch(path)
    if named is not None:
        return f'"{named[1]}"'
    with file.open("rb") as stream:
        return f'"{hashlib.sha256(stream.read(HASHED_WHOLE)).hexdigest()}"'


def _stopped(number: int, _: FrameType | None) -> None:
    # uvicorn shuts down gracefully on its own handler and then raises the signal again for this one.
    raise SystemExit(0 if number == signal.SIGTERM else 130)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _log_as_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
