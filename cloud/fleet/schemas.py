"""What the fleet gives, and what enrolling a box takes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.contracts.base import Identifier

Status = Literal["online", "silent", "offline", "never"]


class NewEdge(BaseModel):
    """A box to enrol. Its certificate's common name must be its name."""

    model_config = ConfigDict(extra="forbid")
    name: Identifier
    line: Identifier
    certificate: str | None = Field(default=None, max_length=16_384)


class EdgeView(BaseModel):
    """A box. `silent`: said online but nothing was heard for a while. `heartbeat` is its newest word."""

    name: str
    line: str
    status: Status
    seen_at: int | None
    release: int
    update_state: str
    epoch: str | None
    certified: bool
    heartbeat: dict[str, Any]


class FleetView(BaseModel):
    """All boxes as of a moment; `ingest` are the receiving side's counters since its start."""

    as_of: int
    edges: list[EdgeView]
    ingest: dict[str, int]


class AccountView(BaseModel):
    """Conservation of one epoch of one box. `current` marks the epoch it is in now."""

    edge: str
    epoch: str
    current: bool
    max_seq: int
    stored: int
    pending: int
    lost: dict[str, int]
    recovered: int
    missing: list[tuple[int, int]]
    unlisted: int
    holds: bool


class ConservationView(BaseModel):
    """The law for a whole line."""

    line: str
    as_of: int
    holds: bool
    accounts: list[AccountView]
