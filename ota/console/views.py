"""The cloud's answers as text for a person, and the one judgement made from them: a rollout's exit code. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ota.console.exits import Exit
from ota.console.terminal import moment, table

Document = Mapping[str, Any]


def releases(found: Sequence[Document]) -> str:
    """One row per release, newest first."""
    if not found:
        return "no release yet"
    rows = [
        (r["number"], r["adapter_release"], r["model_version"], state(r), moment(r["created_at"]), r["reason"] or "-")
        for r in found
    ]
    return table(("release", "adapter", "model", "state", "created", "reason"), rows)


def release(found: Document) -> str:
    """One release in full, with its boxes when the answer has them."""
    lines = [
        f"line       {found['line']}",
        f"release    {found['number']}  (adapter release {found['adapter_release']}, {found['model_version']})",
        f"state      {state(found)}, wave {found['wave'] + 1} of {found['waves']}",
        f"created    {moment(found['created_at'])} by {found['actor']}: {found['reason'] or '-'}",
        f"live       {moment(found['live_at'])}",
    ]
    if found["rollback_of"] is not None:
        lines.append(f"rollback   of release {found['rollback_of']}")
    if "totals" in found:
        lines += ["boxes      " + totals(found["totals"]), "", boxes(found["boxes"])]
    if found.get("waiting_for"):
        lines.append(f"waiting for: {found['waiting_for']}")
    return "\n".join(lines)


def state(found: Document) -> str:
    """State in one word, with a hold made visible."""
    return "paused" if found.get("paused") else str(found["state"])


def progress(found: Document) -> str:
    """One line of a watched rollout."""
    return f"release {found['number']}: {state(found)}, {totals(found['totals'])}; {found['waiting_for']}"


def totals(found: Document) -> str:
    """The sum every box is in."""
    parts = " + ".join(f"{found[name]} {name}" for name in ("ok", "failed", "pending", "offline", "excluded"))
    return f"{parts} = {found['boxes']}"


def boxes(found: Sequence[Document]) -> str:
    """One row per box of a rollout."""
    rows = [(b["edge"], b["state"], b["wave"] + 1, b["reason"] or "-", moment(b["since"]), b["parts"]) for b in found]
    return table(("box", "state", "wave", "reason", "since", "parts"), rows)


def fleet(found: Document) -> str:
    """One row per box of the fleet."""
    rows = [
        (e["name"], e["line"], e["status"], e["release"], e["update_state"], moment(e["seen_at"]))
        for e in found["edges"]
    ]
    return f"as of {moment(found['as_of'])}\n" + table(("box", "line", "status", "release", "update", "seen"), rows)


def in_force(found: Sequence[Document], at: datetime) -> Document | None:
    """The release that was the line's newest at that time."""
    limit = at.timestamp() * 1e6
    before = [release for release in found if release["created_at"] <= limit]
    return max(before, key=lambda release: int(release["number"]), default=None)


def outcome(found: Document) -> Exit | None:
    """Exit code of a rollout that ended, None while it goes on."""
    if found["state"] == "running":
        return None
    if found["state"] == "complete":
        return Exit.ROLLED_BACK if found["totals"]["failed"] else Exit.OK
    return Exit.ROLLED_BACK
