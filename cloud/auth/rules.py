"""Which role a request needs, as a table; and whether a browser's request came from our own pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from cloud.settings import Role

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC = re.compile(r"/login|/logout|/language|/static/.*|/favicon\.ico|/api/v1/health")
"""Open to everybody: the way in, what the sign-in page is made of, and whether the server is up."""
LABELLING = re.compile(
    r"/api/v1/samples/[^/]+/(labels|skip|flag)|/api/v1/labels/[^/]+/undo|/(lines/[^/]+/)?review(/.*)?"
)
LOOKING = re.compile(r"/audit/check|/language")
"""Sent with POST, and changing nothing but the reader's own view."""
ADMINISTRATION = re.compile(r"/api/v1/(tokens|edges)(/.*)?")


def is_public(path: str) -> bool:
    """Whether anybody may ask."""
    return PUBLIC.fullmatch(path) is not None


def needed_role(method: str, path: str) -> Role:
    """Reading needs a viewer, judging a labeller, changing anything else an operator."""
    if method in SAFE or LOOKING.fullmatch(path):
        return "viewer"
    if LABELLING.fullmatch(path):
        return "labeller"
    return "admin" if ADMINISTRATION.fullmatch(path) else "operator"


def same_origin(headers: Mapping[str, str], *, scheme: str) -> bool:
    """Whether a browser's request was made by our own page.

    `Sec-Fetch-Site` is trusted where the browser sends it; else `Origin` must name this host. A request with neither
    is refused: every browser in use sends one of them on requests that change something.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    if not origin:
        return False
    parts = urlsplit(origin)
    return parts.scheme in (scheme, "https") and parts.netloc == headers.get("host")
