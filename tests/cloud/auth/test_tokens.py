"""Tokens and sessions: forged, expired and withdrawn ones open nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.auth.rules import needed_role, same_origin
from cloud.auth.tokens import Person, Sessions, TokenBook, digest, new_token, session_key
from cloud.settings import WebToken
from tests.cloud.kit import Clock


def book(*names: str) -> TokenBook:
    return TokenBook([WebToken(name=name, role="labeller", sha256=digest(f"token-{name}")) for name in names])


def sessions(clock: Clock, tokens: TokenBook, key: bytes = b"k" * 32) -> Sessions:
    return Sessions(key=key, tokens=tokens, now=clock, hours=1.0)


def test_a_token_is_found_by_its_digest_only() -> None:
    token, sha256 = new_token()
    tokens = TokenBook([WebToken(name="ann", role="admin", sha256=sha256)])
    assert (found := tokens.find(token)) is not None
    assert found.name == "ann"
    for wrong in ("", "x", token[:-1], sha256, token * 20):
        assert tokens.find(wrong) is None


def test_a_session_lasts_its_time_and_ends_with_its_token() -> None:
    clock, tokens = Clock(), book("ann")
    entry = tokens.find("token-ann")
    assert entry is not None
    cookie = sessions(clock, tokens).open(entry)
    assert sessions(clock, tokens).read(cookie) == Person("ann", "labeller")
    assert sessions(clock, book("bob")).read(cookie) is None
    assert sessions(clock, tokens, b"j" * 32).read(cookie) is None
    clock.advance(3599)
    assert sessions(clock, tokens).read(cookie) is not None
    clock.advance(2)
    assert sessions(clock, tokens).read(cookie) is None


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: "9" + c, lambda c: "", lambda c: "a.b.c", lambda c: "é"]
)
def test_a_changed_cookie_is_nobody(change) -> None:  # type: ignore[no-untyped-def]
    clock, tokens = Clock(), book("ann")
    entry = tokens.find("token-ann")
    assert entry is not None
    assert sessions(clock, tokens).read(change(sessions(clock, tokens).open(entry))) is None


def test_the_session_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "session.key"
    key = session_key(path)
    assert len(key) == 32
    assert session_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(OSError, match="remove it"):
        session_key(path)


def test_roles_include_the_lower_ones() -> None:
    assert Person("a", "admin").may("operator")
    assert not Person("a", "viewer").may("labeller")


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/api/v1/fleet", "viewer"),
        ("POST", "/api/v1/samples/x/labels", "labeller"),
        ("POST", "/api/v1/samples/x/skip", "labeller"),
        ("POST", "/api/v1/labels/1/undo", "labeller"),
        ("POST", "/api/v1/lines/cells/releases/3/abort", "operator"),
        ("POST", "/api/v1/lines/cells/rollback", "operator"),
        ("POST", "/api/v1/edges", "admin"),
        ("POST", "/whatever/comes/later", "operator"),
        ("DELETE", "/api/v1/samples/x/labels/extra", "operator"),
    ],
)
def test_the_role_table(method: str, path: str, role: str) -> None:
    assert needed_role(method, path) == role


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://here:1", "host": "here:1"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "http://here:1", "host": "here:1"}, True),
        ({"origin": "http://here:2", "host": "here:1"}, False),
        ({"origin": "null", "host": "here:1"}, False),
        ({"host": "here:1"}, False),
    ],
)
def test_same_origin(headers: dict[str, str], same: bool) -> None:
    assert same_origin(headers, scheme="http") is same
