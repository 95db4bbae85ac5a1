"""The conservation law, without I/O: stored, pending and declared lost must cover 1..max_seq of every epoch.

Ranges are inclusive pairs. A number both stored and declared lost is *recovered*, which is allowed; a number in none of
them is *missing*, which is an alarm unless the box could not list all it holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Range = tuple[int, int]


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, disjoint, non-adjacent ranges that cover the same numbers."""
    merged: list[Range] = []
    for first, last in sorted(span for span in ranges if span[0] <= span[1]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def subtract(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """What of `ranges` is not in `taken`."""
    holes, left = merge(taken), []
    for first, last in merge(ranges):
        at = first
        for hole_first, hole_last in holes:
            if hole_last < at or hole_first > last:
                continue
            if hole_first > at:
                left.append((at, hole_first - 1))
            at = hole_last + 1
        if at <= last:
            left.append((at, last))
    return left


def size(ranges: Iterable[Range]) -> int:
    """How many numbers."""
    return sum(last - first + 1 for first, last in merge(ranges))


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of one epoch of one box.

    `max_seq` and `pending` are from its newest heartbeat; `unlisted` counts pending samples the heartbeat had no room
    to list.
    """

    max_seq: int
    stored: list[Range]
    pending: list[Range] = field(default_factory=list)
    lost: dict[str, list[Range]] = field(default_factory=dict)
    unlisted: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The account in numbers. `holds` when nothing is missing beyond what the box could not list."""

    max_seq: int
    stored: int
    pending: int
    lost: dict[str, int]
    recovered: int
    missing: list[Range]
    unlisted: int

    @property
    def holds(self) -> bool:
        return size(self.missing) <= self.unlisted


def settle(account: Account) -> Verdict:
    """Check the law. A number counts once: stored before lost before pending."""
    all_lost = merge(span for spans in account.lost.values() for span in spans)
    highest = max([account.max_seq, *(last for _, last in [*account.stored, *all_lost])])
    lost_left, lost = subtract(all_lost, account.stored), {}
    seen = merge(account.stored)
    for reason, spans in sorted(account.lost.items()):
        rest = subtract(spans, seen)
        if rest:
            lost[reason] = size(rest)
        seen = merge([*seen, *rest])
    pending = subtract(account.pending, [*account.stored, *lost_left])
    missing = subtract([(1, highest)] if highest else [], [*account.stored, *lost_left, *pending])
    return Verdict(
        max_seq=highest,
        stored=size(account.stored),
        pending=size(pending),
        lost=lost,
        recovered=size(all_lost) - size(lost_left),
        missing=missing,
        unlisted=account.unlisted,
    )
