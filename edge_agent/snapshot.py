"""What the status page shows, gathered at the moment it is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edge_agent.health import Pulse
from edge_agent.selector.rule import Selector
from edge_agent.updater.updater import Updater
from edge_agent.uplink import Uplink


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from."""

    edge: str
    line: str
    version: str
    pulse: Pulse
    updater: Updater
    uplink: Uplink
    selector: Selector
    gate_updater: Updater | None = None


def snapshot(sources: Sources) -> dict[str, Any]:
    """Plain values, nested by subject.

    Raises:
        IndexFault: the spool's books cannot be read.
    """
    pulse, pace = sources.pulse, sources.selector.pace
    beat, uplink = pulse.heartbeat(), sources.uplink.stats()
    values = {
        "edge": sources.edge,
        "line": sources.line,
        "version": sources.version,
        "model": {"release": beat.release, "adapter": beat.adapter, "previous": beat.previous},
        "update": {
            "state": beat.update_state,
            "trouble": sources.updater.trouble,
            "security_faults": sources.updater.security_faults,
        },
        "parts": asdict(pulse.meter.counts()),
        "latency_ms": {"p50": beat.latency_p50_ms, "p99": beat.latency_p99_ms},
        "budget": {"spent_bytes": pace.spent, "left_bytes": pace.left, "bytes_per_hour": pace.bytes_per_hour},
        "spool": {
            "state": beat.spool,
            "pending": beat.pending.n,
            "pending_bytes": beat.pending.bytes,
            "oldest_age_s": beat.pending.oldest_age_s,
            "max_seq": beat.max_seq,
            "lost": beat.lost,
        },
        "uplink": {
            "connected": uplink.connected,
            "ingest_online": uplink.ingest_online,
            "sent_bytes": uplink.sent_bytes,
            "resent_bytes": uplink.resent_bytes,
        },
        "box": {"rss_bytes": beat.rss_bytes, "disk_free_bytes": beat.disk_free, "clock_ok": beat.clock_ok},
        "cameras": {name: health.model_dump() for name, health in beat.cameras.items()},
    }
    if beat.cascade is not None:
        values["cascade"] = beat.cascade.model_dump() | {
            "update_trouble": sources.gate_updater.trouble if sources.gate_updater else None
        }
    return values
