"""The door in front of every request: who asks, may they, did their own page ask; and strict headers on what leaves.

Plain ASGI, so streams (server-sent events) pass through untouched. A bearer token needs no origin check: no browser
attaches one by itself. A cookie does.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.auth.rules import SAFE, is_public, needed_role, same_origin
from cloud.auth.tokens import Person, Sessions, TokenBook
from cloud.http import Problem

COOKIE = "edgeloop_session"
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
MAX_BODY = 1 << 20
_SOURCE = "an administrator makes one with `edgeloop cloud token create`"
_ASKED = f"Sign in first, or send a bearer token: {_SOURCE}."
_REFUSED = (
    f"The token was not accepted: {_SOURCE}, and its digest must be in cloud.toml when `edgeloop cloud run` starts."
)
_FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware. Puts the name into ``request.state.actor`` and the role into ``request.state.role``."""

    def __init__(self, app: ASGIApp, *, tokens: TokenBook, sessions: Sessions) -> None:
        self._app, self._tokens, self._sessions = app, tokens, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._refuse(scope)
        target: ASGIApp = answer if answer is not None else self._app
        await target(scope, receive, _with_headers(send))

    def _refuse(self, scope: Scope) -> Response | None:
        """The answer for a request that may not pass, or None."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        person, by_cookie = self._who(headers)
        if person is not None:
            scope.setdefault("state", {}).update(actor=person.name, role=person.role)
        by_browser = by_cookie or path in ("/login", "/logout")
        if method not in SAFE and by_browser and not same_origin(headers, scheme=scope["scheme"]):
            return Problem(403, "cross_origin", "This request did not come from this site's own page.").response()
        if is_public(path):
            return None
        if person is None:
            return _sign_in(scope, headers)
        role = needed_role(method, path)
        if not person.may(role):
            detail = f"{person.name} is a {person.role}; this needs the role {role}."
            return Problem(403, "forbidden", detail).response()
        return _too_large(headers, path)

    def _who(self, headers: Headers) -> tuple[Person | None, bool]:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            entry = self._tokens.find(token.strip())
            return (Person(entry.name, entry.role) if entry else None), False
        cookie = read_cookie(headers.get("cookie", ""))
        return (self._sessions.read(cookie) if cookie else None), bool(cookie)


def read_cookie(header: str) -> str | None:
    """The session cookie's value."""
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


def _sign_in(scope: Scope, headers: Headers) -> Response:
    path, method = scope["path"], scope["method"]
    if path.startswith("/api/") or method not in SAFE or "text/html" not in headers.get("accept", ""):
        answer = Problem(401, "unauthenticated", _REFUSED if "authorization" in headers else _ASKED).response()
        answer.headers["WWW-Authenticate"] = 'Bearer realm="edgeloop"'
        return answer
    query = scope.get("query_string", b"").decode("latin-1")
    here = quote(path + (f"?{query}" if query else ""), safe="")
    return RedirectResponse(f"/login?next={here}", status_code=303)


def _too_large(headers: Headers, path: str) -> Response | None:
    length = headers.get("content-length", "0")
    if "/references/" in path or (length.isdigit() and int(length) <= MAX_BODY):
        return None
    return Problem(413, "too_large", f"A request may have {MAX_BODY >> 20} MiB.").response()


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _FIXED.items():
                headers[name] = value
            headers.setdefault("Content-Security-Policy", POLICY)
            # Not no-referrer: browsers would then send "Origin: null" with our own forms.
            headers.setdefault("Referrer-Policy", "same-origin")
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return wrapped
