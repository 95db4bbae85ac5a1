"""No part on the must-catch list may newly slip through. A part sent to a person has not slipped through."""

from __future__ import annotations

import numpy as np

from cloud.gate.evidence import Evidence, Finding


class MustCatch:
    """An image of a must-catch class, or marked so itself, is missed when the verdict is PASS."""

    name = "must_catch"
    relative = False

    def judge(self, evidence: Evidence) -> Finding:
        listed = evidence.must_catch
        missed = listed & evidence.candidate.calls.passed
        if evidence.incumbent is None:
            return self._first(evidence, int(missed.sum()), int(listed.sum()))
        new = missed & ~evidence.incumbent.calls.passed
        known = int((missed & ~new).sum())
        names = [evidence.digests[i][:12] for i in np.flatnonzero(new)]
        numbers = {"listed": int(listed.sum()), "new": len(names), "known": known, "images": names[:50]}
        shown = ": " + ", ".join(names[:5]) if names else ""
        text = (
            f"{len(names)} of {int(listed.sum())} must-catch images are newly missed{shown}; "
            f"{known} are missed by both releases."
        )
        return Finding(self.name, not names, text, numbers)

    def _first(self, evidence: Evidence, missed: int, listed: int) -> Finding:
        limit = evidence.limits.first_must_catch_share
        fine = limit is None or missed <= limit * listed
        allowed = "no limit is set for a first release" if limit is None else f"{limit * listed:.0f} allowed"
        numbers = {"listed": listed, "missed": missed}
        return Finding(self.name, fine, f"{missed} of {listed} must-catch images are missed; {allowed}.", numbers)
