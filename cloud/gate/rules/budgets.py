"""What a release may cost: bytes to a box, milliseconds per frame."""

from __future__ import annotations

import numpy as np

from cloud.gate.evidence import Evidence, Finding


class Size:
    """Bytes a box fetches for the release."""

    name = "size"
    relative = False

    def judge(self, evidence: Evidence) -> Finding:
        size, limit = evidence.candidate.size, evidence.limits.release_bytes
        text = f"the release is {size / 1e6:.2f} MB, {limit / 1e6:.2f} MB allowed (gate.release_bytes)."
        return Finding(self.name, size <= limit, text, {"bytes": size, "limit": limit})


class Latency:
    """95th percentile from pixels to scores, on the gate's machine."""

    name = "latency"
    relative = False

    def judge(self, evidence: Evidence) -> Finding:
        limit, times = evidence.limits.latency_p95_ms, evidence.candidate.latency
        if not len(times):
            return Finding(self.name, False, "no gate image could be read, so latency is not known.", {})
        middle, high = (float(np.quantile(times, q)) for q in (0.5, 0.95))
        text = (
            f"a frame takes {middle:.1f} ms (95 % within {high:.1f} ms), {limit:.0f} ms allowed (gate.latency_p95_ms)."
        )
        return Finding(self.name, high <= limit, text, {"p50_ms": middle, "p95_ms": high, "limit_ms": limit})
