"""The cloud's HTTP API as the console needs it. Every failure becomes one line and an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from ota.console.exits import Exit, Failed

TIMEOUT_S = 30.0
_GIVEN = "--token or EDGELOOP_TOKEN"
_SOURCE = "an administrator makes one with `edgeloop cloud token create` and puts its digest into cloud.toml"
_GATE_CODES = frozenset({"gate_refused", "not_accepted"})
_BY_STATUS = {
    400: Exit.USAGE, 401: Exit.AUTH, 403: Exit.AUTH, 404: Exit.NOT_FOUND, 409: Exit.CONFLICT, 412: Exit.CONFLICT,
    422: Exit.USAGE, 429: Exit.UNREACHABLE, 502: Exit.UNREACHABLE, 503: Exit.UNREACHABLE, 504: Exit.UNREACHABLE,
}  # fmt: skip


class CloudApi:
    """Requests with a bearer token; use as a context manager."""

    def __init__(self, url: str, token: str | None, *, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Accept": "application/json"}
        if token:
            if not (token.isascii() and token.isprintable()):
                raise Failed(f"the token has characters that no token has: correct {_GIVEN}", Exit.USAGE)
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, *path: str | int, **query: str | int | None) -> Any:
        """Decoded JSON of ``/api/v1/<path>``. Raises: Failed."""
        return self._asked("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, *path: str | int, body: Mapping[str, Any]) -> Any:
        """Decoded JSON of a POST. Raises: Failed."""
        return self._asked("POST", path, json=dict(body))

    def _asked(self, method: str, path: tuple[str | int, ...], **options: Any) -> Any:
        address = "/api/v1/" + "/".join(quote(str(part), safe="") for part in path)
        try:
            answer = self._client.request(method, address, **options)
        except httpx.InvalidURL as fault:
            raise Failed(f"{fault}: correct --url or EDGELOOP_URL", Exit.USAGE) from fault
        except httpx.HTTPError as fault:
            text = f"cannot reach the cloud at {self._client.base_url}: {fault or type(fault).__name__}"
            raise Failed(text, Exit.UNREACHABLE) from fault
        if answer.is_success:
            return _json(answer)
        raise _failure(answer)


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as fault:
        raise Failed(
            f"{answer.url} answered no JSON: is --url the cloud's address, not the release server's?", Exit.ERROR
        ) from fault


def _failure(answer: httpx.Response) -> Failed:
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    detail = str(problem.get("detail") or f"HTTP {answer.status_code} from {answer.url}")
    if answer.status_code == 401:
        detail = _unauthenticated(answer.request)
    if problem.get("code") in _GATE_CODES:
        return Failed(detail, Exit.GATE_REFUSED)
    return Failed(detail, _BY_STATUS.get(answer.status_code, Exit.ERROR))


def _unauthenticated(request: httpx.Request) -> str:
    """The server cannot know how the token was given here, so this says it."""
    place = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
    if "authorization" in request.headers:
        return f"the token was not accepted by {place}: correct {_GIVEN}; {_SOURCE}"
    return f"{place} asks for a token: give {_GIVEN}; {_SOURCE}"
