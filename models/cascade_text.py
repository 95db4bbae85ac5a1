"""What `edgeloop models cascade` prints for a person; the documents are made by the commands."""

from __future__ import annotations

from typing import Any


def bench_text(d: dict[str, Any]) -> str:
    return (
        f"{d['parts']} parts, {d['threads']} threads; gate {d['gate_ms']:.1f} ms a part ({d['gate_pretrained']})\n"
        f"big model alone {d['big_ms']:.0f} ms a part ({d['big_pretrained']})\n"
        f"escalated {d['escalated']} ({d['escalated'] / d['parts']:.1%}), audited {d['audited']} "
        f"({d['audited'] / d['parts']:.1%})\n"
        f"cascade {d['cascade_s']:.1f} s, {d['parts'] / d['cascade_s']:.2f} parts/s: {d['speedup']:.2f} times the big "
        f"model alone; at least {d['target']:.2f} = 0.8 / (t_gate/t_big + escalation + audit) wanted: "
        f"{'reached' if d['ok'] else 'MISSED'}"
    )


def calibration_text(document: dict[str, Any]) -> str:
    """A table: the curve, then the picked cuts on both halves."""
    head = "| escalated | added escape (95 %) | saved | added overkill (95 %) | saved | escape | overkill |"
    rows = [_row(row, "") for row in document["curve"]]
    cuts, limits = document["cuts"], document["limits"]
    below, above = (cuts.get(name, "never") for name in ("certain_pass_below", "certain_reject_above"))
    return "\n".join([
        head, "|---|---|---|---|---|---|---|", *rows, "",
        f"limits: added escape {limits['added_escape']:.2%}, added overkill {limits['added_overkill']:.2%}",
        "each limit holds at 95 % by itself; both together hold at 90 % at least",
        f"passes below {below}, rejects from {above}",
        head, "|---|---|---|---|---|---|---|",
        _row(document["picked_on"], " (picked on)"), _row(document["judged_on"], " (judged on)"),
        "", _outcome(document),
    ])  # fmt: skip


def _outcome(document: dict[str, Any]) -> str:
    if not document["ok"]:
        return "NOT ok"
    return "ok: the limits hold on the half that was picked on, and the other half does not rule them out"


def _row(row: dict[str, Any], what: str) -> str:
    def share(of: dict[str, float]) -> str:
        return f"{of['rate']:.2%} ({of['low']:.2%} to {of['high']:.2%})"

    return (
        f"| {row['escalation']:.1%}{what} | {share(row['added_escape'])} | {row['saved_escapes']} | "
        f"{share(row['added_overkill'])} | {row['saved_overkills']} | {row['escape']['rate']:.2%} | "
        f"{row['overkill']['rate']:.2%} |"
    )
