"""Signing in and out of the browser. ``/login?token=...`` is the link `edgeloop cloud token create` prints.

The answer is a page that moves on by itself instead of a redirect: after a redirect that began on another site a
browser withholds a SameSite=Strict cookie, and the person would seem not to be signed in.
"""

from __future__ import annotations

from html import escape
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from cloud.auth.guard import COOKIE
from cloud.auth.tokens import Sessions, TokenBook
from cloud.dashboard.pages import local_path, login_page

router = APIRouter(tags=["auth"], include_in_schema=False)
_WELCOME = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>edgeloop</title>'
    '<meta http-equiv="refresh" content="0;url={target}"></head>'
    '<body><main><p><a href="{target}">edgeloop</a></p></main></body></html>'
)


def _enter(request: Request, token: str, target: str | None) -> Response:
    tokens: TokenBook = request.app.state.tokens
    sessions: Sessions = request.app.state.sessions
    entry = tokens.find(token.strip())
    if entry is None:
        return login_page(request, error="bad_token" if token.strip() else "no_token", next_path=target)
    answer = HTMLResponse(_WELCOME.format(target=escape(local_path(target))))
    answer.set_cookie(
        COOKIE, sessions.open(entry), max_age=sessions.max_age_s, httponly=True, samesite="strict", path="/",
        secure=request.app.state.secure_cookies,
    )  # fmt: skip
    return answer


@router.get("/login")
def sign_in_page(request: Request, token: str | None = None, next: str | None = None) -> Response:
    """The sign-in link, or the form when it has no token."""
    return _enter(request, token, next) if token else login_page(request, next_path=next)


@router.post("/login")
def sign_in(
    request: Request,
    token: Annotated[str, Form(max_length=512)] = "",
    target: Annotated[str, Form(alias="next", max_length=2048)] = "/",
) -> Response:
    """The form."""
    return _enter(request, token, target)


@router.post("/logout")
def sign_out() -> Response:
    """Forget the session in this browser."""
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(COOKIE, path="/")
    return answer
