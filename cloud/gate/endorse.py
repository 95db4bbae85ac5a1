"""The gate's signature: put only under what the gate itself judged.

The trainer proposes the adapter role's next metadata. Before it is signed a second time, everything it lists must be an
adapter release the registry holds as accepted or published, by digest: a trainer's key cannot slip another file in
between judging and signing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from models.contracts.base import Malformed, parse_json
from models.contracts.tuf_layout import adapter_manifest_path

MAX_PROPOSAL_BYTES = 5_000_000


class Endorser(Protocol):
    """What the gate needs of `ota.repository.ReleaseRepository`."""

    def endorse_adapter(self, line: str, proposal: bytes, gate: Any) -> int:
        """Check, sign and write; the same proposal twice is endorsed once."""
        ...


class WrongProposal(ValueError):
    """The proposal lists something the gate did not accept. Nothing was signed."""


def check_proposal(proposal: bytes, line: str, approved: Mapping[int, str], *, release: int | None) -> None:
    """Compare a proposal with what the gate accepted.

    Args:
        approved: manifest digest by adapter release, all that are accepted or published.
        release: the one under judgement, which must be listed; None for a renewal.

    Raises:
        WrongProposal: naming the first path that is not approved.
    """
    listed = _manifests(proposal)
    expected = {adapter_manifest_path(line, number): sha for number, sha in approved.items()}
    for path, sha in sorted(listed.items()):
        if expected.get(path) != sha:
            raise WrongProposal(f"the proposal lists {path} with digest {sha[:12]}, which the gate did not accept")
    if release is not None and adapter_manifest_path(line, release) not in listed:
        raise WrongProposal(f"the proposal does not list adapter release {release}")


def _manifests(proposal: bytes) -> dict[str, str]:
    try:
        targets = parse_json(proposal, limit=MAX_PROPOSAL_BYTES)["signed"]["targets"]
        return {
            path: str(entry["hashes"]["sha256"])
            for path, entry in targets.items()
            if re.search(r"\.manifest\.json$", path)
        }
    except (Malformed, KeyError, TypeError, AttributeError) as fault:
        raise WrongProposal(f"the proposal is no TUF targets metadata: {fault}") from fault
