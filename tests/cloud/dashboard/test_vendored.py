"""The vendored JavaScript is exactly what NOTICE says, and NOTICE names all of it."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from cloud.dashboard.pages import STATIC

NOTICE = Path(__file__).parents[3] / "NOTICE"
VENDOR = STATIC / "vendor"


def test_files_have_the_digests_in_notice() -> None:
    stated = re.findall(r"^sha256 ([0-9a-f]{64})  (\S+)  (\S+)@(\S+)  \S+$", NOTICE.read_text("utf-8"), flags=re.M)
    assert {name for _, name, _, _ in stated} == {path.name for path in VENDOR.iterdir()}
    for digest, name, _, version in stated:
        assert sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
        assert version in name


def test_nothing_is_fetched_from_elsewhere() -> None:
    """No page, script or style of ours names another host."""
    own = [path for path in STATIC.rglob("*") if path.is_file() and path.parent != VENDOR]
    templates = (STATIC.parent / "templates").glob("*.html")
    for path in [*own, *templates]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|\beval\(|new Function\(", text), path.name
