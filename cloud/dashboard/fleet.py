"""What the fleet page says about a box. Abnormal: offline, a bad update state, a full spool, a camera in trouble.

Pure: a row and its declared losses in, words out. Grey is normal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloud.dashboard import words
from cloud.dashboard.i18n import Speech
from cloud.dashboard.words import N_
from cloud.db.tables import Edge

ACCOUNTED = frozenset({"thinned"})
SPOOL = {"degraded": N_("spool under pressure"), "full": N_("spool full")}
CAMERA = {
    "silent": N_("camera %(name)s is silent"),
    "failed": N_("camera %(name)s failed"),
    "bad_exposure": N_("camera %(name)s: bad exposure"),
}
GATE_MISSES = {
    "escape": N_("missed by the gate alone: %(share)s (%(low)s to %(high)s)"),
    "overkill": N_("rejected by the gate alone: %(share)s (%(low)s to %(high)s)"),
}


@dataclass(frozen=True)
class Box:
    """One row of the fleet table. `lost` leaves out what was thinned on purpose and is accounted for. `gate` says where
    parts are decided on a box with a gate in front of its model, and what its audits found; empty on any other.
    """

    name: str
    line: str
    online: bool
    release: int
    state: str
    state_bad: bool
    pending: int
    pending_bytes: int
    lost: int
    lost_words: str
    memory: int | None
    latency_p50: float | None
    latency_p99: float | None
    seen_s: float | None
    version: str
    troubles: Sequence[str]
    gate: str = ""

    @property
    def abnormal(self) -> bool:
        return not self.online or self.state_bad or self.lost > 0 or bool(self.troubles)


def box(speech: Speech, edge: Edge, losses: Mapping[str, int], *, now: int) -> Box:
    """A box as the table shows it; a box that never spoke has an empty heartbeat and says so."""
    beat = edge.heartbeat or {}
    pending = beat.get("pending") or {}
    return Box(
        name=edge.name,
        line=edge.line,
        online=edge.online,
        release=edge.release,
        state=words.word(speech, words.UPDATE_STATES, edge.update_state if edge.seen_at is not None else None),
        state_bad=edge.update_state in words.BAD_UPDATE_STATES,
        pending=int(pending.get("n", 0)),
        pending_bytes=int(pending.get("bytes", 0)),
        lost=sum(count for reason, count in losses.items() if reason not in ACCOUNTED),
        lost_words="; ".join(
            f"{words.word(speech, words.LOSSES, reason)}: {speech.number(count)}"
            for reason, count in sorted(losses.items())
        ),
        memory=beat.get("rss_bytes"),
        latency_p50=beat.get("latency_p50_ms"),
        latency_p99=beat.get("latency_p99_ms"),
        seen_s=None if edge.seen_at is None else (now - edge.seen_at) / 1e6,
        version=str(beat.get("version", "–")),
        troubles=_troubles(speech, beat),
        gate=_gate(speech, beat.get("cascade")),
    )


def _gate(speech: Speech, cascade: Mapping[str, Any] | None) -> str:
    """Where this box's parts were decided since it started, and the gate's own misses as its audits estimate them."""
    if not cascade:
        return ""
    sums = cascade["sums"]
    ended = sums["n_pass"] + sums["n_reject"]
    parts = [
        speech.say(
            "gate %(name)s, release %(release)s: %(share)s of parts end there, %(late)s late",
            name=cascade["gate_line"], release=cascade["release"] or "–", late=speech.number(sums["n_late"]),
            share=speech.percent(ended / (ended + sums["n_escalated"])) if ended + sums["n_escalated"] else "–",
        )
    ]  # fmt: skip
    for name, words_ in GATE_MISSES.items():
        found = cascade.get(name)
        if found is not None:
            low, high = speech.percent(found["low"]), speech.percent(found["high"])
            parts.append(speech.say(words_, share=speech.percent(found["rate"]), low=low, high=high))
    parts.append(speech.say_n("%(n)s part audited", "%(n)s parts audited", sums["n_audited"]))
    return "; ".join(parts)


def _troubles(speech: Speech, beat: Mapping[str, object]) -> list[str]:
    found = []
    spool = str(beat.get("spool", "ok"))
    if spool in SPOOL:
        found.append(speech.say(SPOOL[spool]))
    if beat.get("clock_ok") is False:
        found.append(speech.say("clock not trusted"))
    dropped = beat.get("dropped_frames")
    if isinstance(dropped, int) and dropped > 0:
        found.append(speech.say_n("%(n)s frame dropped", "%(n)s frames dropped", dropped))
    cascade = beat.get("cascade")
    if isinstance(cascade, dict) and cascade.get("trouble"):
        found.append(speech.say("gate %(name)s: %(trouble)s", name=cascade["gate_line"], trouble=cascade["trouble"]))
    cameras = beat.get("cameras")
    for name, health in (cameras if isinstance(cameras, dict) else {}).items():
        state = str(health.get("state", "ok"))
        if state in CAMERA:
            found.append(speech.say(CAMERA[state], name=name))
    return found
