"""Bearer tokens and the session cookie. The server keeps digests of tokens only, and one key that signs sessions.

A session names its token's digest: removing or changing the token in the configuration ends its sessions.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from cloud.clock import NowUs
from cloud.settings import Role, WebToken

ROLES: tuple[Role, ...] = get_args(Role)
TOKEN_BYTES = 32
MAX_TOKEN = 512


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody signed in, or a program with a token."""

    name: str
    role: Role

    def may(self, needed: Role) -> bool:
        """Whether the role includes the needed one: viewer < labeller < operator < admin."""
        return ROLES.index(self.role) >= ROLES.index(needed)


def new_token() -> tuple[str, str]:
    """A fresh token and the digest to configure."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, digest(token)


def digest(token: str) -> str:
    """What the configuration holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class TokenBook:
    """The configured tokens."""

    def __init__(self, tokens: Sequence[WebToken]) -> None:
        self._tokens = list(tokens)

    def find(self, token: str) -> WebToken | None:
        """The entry of a token; takes the same time whichever matches."""
        if not token or len(token) > MAX_TOKEN:
            return None
        given, found = digest(token), None
        for entry in self._tokens:
            if hmac.compare_digest(entry.sha256, given):
                found = entry
        return found

    def by_digest(self, sha256: str) -> WebToken | None:
        """The entry a session was opened with, if it is still configured."""
        return next((entry for entry in self._tokens if entry.sha256 == sha256), None)


class Sessions:
    """Makes and reads the cookie ``<expires>.<digest of the token>.<HMAC-SHA256>``."""

    def __init__(self, *, key: bytes, tokens: TokenBook, now: NowUs, hours: float) -> None:
        self._key, self._tokens, self._now, self._hours = key, tokens, now, hours

    def open(self, token: WebToken) -> str:
        """A cookie value for a token's holder."""
        expires = self._now() // 1_000_000 + self.max_age_s
        body = f"{expires}.{token.sha256}"
        return f"{body}.{self._sign(body)}"

    def read(self, cookie: str) -> Person | None:
        """Who a cookie speaks for; None when it is forged, expired, or its token is gone."""
        body, _, signature = cookie.rpartition(".")
        if len(cookie) > MAX_TOKEN or not hmac.compare_digest(self._sign(body).encode(), signature.encode()):
            return None
        expires, _, sha256 = body.partition(".")
        if int(expires) <= self._now() // 1_000_000:
            return None
        token = self._tokens.by_digest(sha256)
        return Person(token.name, token.role) if token is not None else None

    @property
    def max_age_s(self) -> int:
        """How long a session lasts, seconds."""
        return int(self._hours * 3600)

    def _sign(self, body: str) -> str:
        mac = hmac.new(self._key, body.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def session_key(path: Path) -> bytes:
    """The signing key of this installation, made at the first start with mode 0600.

    Raises:
        OSError: the file cannot be read or made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    key = path.read_bytes()
    if len(key) < 32:
        raise OSError(f"{path} is no session key: remove it and start again; everybody signs in anew")
    return key
