"""Signing in and out of the browser. ``/login?token=...`` is the link `edgeloop cloud token create` prints.

The answer is a page that moves on by itself instead of a redirect: after a redirect that began on another site a
browser withholds a SameSite=Strict cookie, and the person would seem not to be signed in.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from cloud.auth.guard import COOKIE
from cloud.auth.tokens import Sessions, TokenBook

router = APIRouter(tags=["auth"], include_in_schema=False)
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>edgeloop</title>'
    '<meta name="viewport" content="width=device-width">{head}</head>'
    "<body><main><h1>edgeloop</h1>{body}</main></body></html>"
)
_FORM = (
    '<p>{message}</p><form method="post" action="/login"><label for="token">Token</label> '
    '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus> '
    '<button type="submit">Sign in</button></form>'
)
_WELCOME = _PAGE.format(
    head='<meta http-equiv="refresh" content="0;url=/">', body='<p>Signed in. <a href="/">Go on</a></p>'
)


def _form(message: str, status: int) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(head="", body=_FORM.format(message=message)), status_code=status)


def _enter(request: Request, token: str) -> Response:
    tokens: TokenBook = request.app.state.tokens
    sessions: Sessions = request.app.state.sessions
    entry = tokens.find(token)
    if entry is None:
        return _form("This token is not known here. Ask for a new one: edgeloop cloud token create.", 401)
    answer = HTMLResponse(_WELCOME)
    answer.set_cookie(
        COOKIE, sessions.open(entry), max_age=sessions.max_age_s, httponly=True, samesite="strict", path="/",
        secure=request.app.state.secure_cookies,
    )  # fmt: skip
    return answer


@router.get("/login")
def login_page(request: Request, token: str | None = None) -> Response:
    """The sign-in link, or the form when it has no token."""
    return _enter(request, token) if token else _form("Paste the token you were given.", 200)


@router.post("/login")
def login(request: Request, token: Annotated[str, Form(max_length=512)]) -> Response:
    """The form."""
    return _enter(request, token)


@router.post("/logout")
def logout() -> Response:
    """Forget the session in this browser."""
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(COOKIE, path="/")
    return answer
