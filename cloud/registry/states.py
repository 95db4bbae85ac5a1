"""The one table of a candidate's states. They move one way; what was refused or revoked stays so for ever."""

from __future__ import annotations

from typing import Literal

State = Literal["trained", "accepted", "refused", "published", "revoked"]

MOVES: dict[State, frozenset[State]] = {
    "trained": frozenset({"accepted", "refused"}),
    "accepted": frozenset({"published"}),
    "refused": frozenset(),
    "published": frozenset({"revoked"}),
    "revoked": frozenset(),
}


class WrongMove(ValueError):
    """A candidate cannot go from this state to that one."""


def move(now: str, to: State) -> State:
    """The new state.

    Raises:
        WrongMove: saying what the candidate is.
    """
    if to not in MOVES[now]:  # type: ignore[index]
        raise WrongMove(f"a {now} candidate cannot become {to}")
    return to
