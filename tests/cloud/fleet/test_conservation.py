"""The conservation law as a table and as a property against a naive count."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.fleet.conservation import Account, merge, settle, size, subtract

Spans = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 8)).map(lambda p: (p[0], p[0] + p[1])), max_size=6)


def numbers(spans: list[tuple[int, int]]) -> set[int]:
    return {n for first, last in spans for n in range(first, last + 1)}


@given(Spans, Spans)
@settings(max_examples=150, deadline=None)
def test_ranges_are_sets(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    assert numbers(merge(left)) == numbers(left)
    assert numbers(subtract(left, right)) == numbers(left) - numbers(right)
    assert size(left) == len(numbers(left))
    merged = merge(left)
    assert all(first[1] + 1 < second[0] for first, second in pairwise(merged))


@given(Spans, Spans, Spans, st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_every_number_is_counted_once(
    stored: list[tuple[int, int]], pending: list[tuple[int, int]], lost: list[tuple[int, int]], max_seq: int
) -> None:
    pending = [(first, min(last, max_seq)) for first, last in pending if first <= max_seq]
    verdict = settle(Account(max_seq=max_seq, stored=stored, pending=pending, lost={"thinned": lost}))
    counted = verdict.stored + verdict.pending + sum(verdict.lost.values()) + size(verdict.missing)
    assert counted == verdict.max_seq
    assert numbers(verdict.missing) == set(range(1, verdict.max_seq + 1)) - numbers([*stored, *pending, *lost])
    assert verdict.recovered == len(numbers(stored) & numbers(lost))
    assert verdict.holds == (not verdict.missing)


def test_a_gap_is_missing_unless_the_box_could_not_list_it() -> None:
    account = Account(max_seq=10, stored=[(1, 4)], pending=[(5, 6)], lost={"evicted": [(7, 8)]})
    assert settle(account).missing == [(9, 10)]
    assert not settle(account).holds
    assert settle(Account(10, [(1, 4)], [(5, 6)], {"evicted": [(7, 8)]}, unlisted=2)).holds


def test_an_epoch_that_ended_is_tiled_by_its_last_declaration() -> None:
    verdict = settle(Account(max_seq=0, stored=[(1, 3), (6, 6)], lost={"accounting_ended": [(1, 9)]}))
    assert verdict.holds
    assert (verdict.stored, verdict.lost, verdict.recovered) == (4, {"accounting_ended": 5}, 4)


def test_nothing_at_all_holds() -> None:
    assert settle(Account(max_seq=0, stored=[])).holds
