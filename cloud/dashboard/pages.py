"""Templates and headers: turns a template and its values into a page in the asker's language.

Every page carries a strict Content-Security-Policy: scripts and styles only from this server's own files, none in
the page, so text that got into a label or a reason cannot run. What the data means is decided in `views`.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cloud.dashboard import words
from cloud.dashboard.i18n import COOKIE, LOCALES, Speech, choose

STATIC = Path(__file__).parent / "static"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept-Language, Cookie",
}


@cache
def asset(name: str) -> str:
    """A static file's address, with its digest: a new version is a new address, so browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def as_data(value: Any) -> Markup:
    """JSON for a double-quoted data attribute."""
    return Markup.escape(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cloud.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    environment.globals.update(asset=asset, words=words, locales=LOCALES)
    environment.filters["as_data"] = as_data
    return environment


def speech_of(request: Request) -> Speech:
    """How to speak to whoever sent the request."""
    return Speech(choose(request.cookies.get(COOKIE), request.headers.get("accept-language")))


def here(request: Request) -> str:
    """The page's own address without scheme and host, to come back to."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def local_path(target: str | None) -> str:
    """`target` if it is a path on this server, else the start page: a form must not send people elsewhere."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")) or "\n" in target or "\r" in target:
        return "/"
    return target


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page. Templates get `say`, `say_n`, `speech`, `actor`, `path` and `values`."""
    speech = speech_of(request)
    context = {
        "say": speech.say,
        "say_n": speech.say_n,
        "speech": speech,
        "actor": getattr(request.state, "actor", None),
        "path": here(request),
        **values,
    }
    body = _environment().get_template(template).render(context)
    return HTMLResponse(body, status_code=status, headers=HEADERS)


def login_page(request: Request, *, error: str | None = None, next_path: str | None = None) -> HTMLResponse:
    """The sign-in form. It posts `token` and `next` to ``/login``.

    Args:
        error: a key of `words.SIGN_IN_ERRORS`, or a sentence to show as it is. With one the status is 401.
        next_path: where to go after signing in; anything but a local path becomes the start page.
    """
    sentence = None if error is None else words.sign_in_error(speech_of(request), error)
    status = 200 if error is None else 401
    return render(request, "login.html", status=status, error=sentence, next_path=local_path(next_path))


def problem_page(request: Request, *, status: int, detail: str) -> HTMLResponse:
    """An error as a page: what happened, and where to go from here."""
    return render(request, "problem.html", status=status, code=status, detail=detail)
