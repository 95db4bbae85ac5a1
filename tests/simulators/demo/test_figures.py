"""Journals and records joined with the truth: each figure of a tiny run, worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from simulators.demo.figures import account
from simulators.demo.journal import Dropped, dropped, live_at
from tests.simulators.demo.tiny_run import SCENARIO, SHOWINGS, finished, observed, records


def test_accuracy_escapes_and_overkill_by_the_hour() -> None:
    first, second, third = finished().hours
    assert first.truth_accuracy == 3 / 4  # P2 is defective and was called good
    assert (first.counts.escapes, first.counts.defects, first.counts.overkills) == (1, 2, 0)
    assert second.truth_accuracy == 2 / 3  # P5 is good and was rejected, P8 could not be judged
    assert (second.counts.overkills, second.counts.unsure, second.counts.judged) == (1, 1, 3)
    assert third.truth_accuracy == 1.0


def test_the_estimate_stands_beside_its_hour() -> None:
    first, second, third = finished().hours
    assert (first.estimate.value, first.estimate.low, first.estimate.high) == (0.8, 0.6, 0.9)
    assert second.estimate.value is None
    assert second.estimate.note == "not enough"
    assert third.estimate.labels == 0


def test_shares_count_distinct_cells() -> None:
    run = finished()
    assert [hour.uploaded_share for hour in run.hours] == [1 / 4, 1 / 4, 0.0]
    assert run.shares.poly_shown == 8
    assert run.shares.poly_uploaded_share == 1 / 8
    assert run.shares.poly_labelled_share == 0.0
    assert run.shares.labelled_share == 1 / 12


def test_a_cell_seen_twice_is_one_cell() -> None:
    seen = observed()
    again = [replace(part, cell=SHOWINGS[5].cell) if part.serial == "P000010" else part for part in SHOWINGS]
    uploads = [*seen.records.uploads, replace(seen.records.uploads[1], sid="sid-10", serial="P000010")]
    run = finished(replace(seen, showings=again, records=replace(seen.records, uploads=uploads)))
    assert run.shares.poly_shown == 7
    assert run.shares.poly_uploaded_share == 1 / 7


@pytest.mark.parametrize(("number", "waited"), [(7, 320.0), (5, 320.0), (9, 20.0)])
def test_a_part_that_waits_where_the_release_changes_is_the_pause(number: int, waited: float) -> None:
    """P7 is edge-2's first part with release 2 and P5 its last before; P9 comes later and has nothing to do with it."""
    seen = observed()
    late = f"P{number:06d}"
    entries = [
        replace(one, captured_at=one.captured_at + 0.1, latency_ms=220.0) if one.serial == late else one
        for one in seen.entries
    ]
    learned = finished(replace(seen, entries=entries)).hours[0].learned
    assert learned is not None
    assert learned.swap_pause_ms == pytest.approx(waited)


def test_a_release_belongs_to_the_hour_of_its_last_label_and_is_live_when_the_last_box_judges_with_it() -> None:
    first, second, _ = finished().hours
    assert second.learned is None
    assert first.learned is not None
    assert first.learned.adapter_release == 2
    assert first.learned.bytes == 1_500_000
    assert first.learned.swap_pause_ms == pytest.approx(20.0)
    # the last label at 38; P7 at 65 and P8 at 75 are the two boxes' first parts with release 2
    assert first.learned.seconds_to_live == pytest.approx(75 - 38)


def test_a_release_that_one_box_never_ran_is_not_live() -> None:
    seen = observed()
    entries = [replace(one, release=1) if one.edge == "edge-2" else one for one in seen.entries]
    assert live_at(entries, 2, SCENARIO.edge_names) is None
    first = finished(replace(seen, entries=entries)).hours[0]
    assert first.learned is not None
    assert first.learned.seconds_to_live is None


def test_every_part_must_be_in_the_journals_once_and_in_time() -> None:
    rows = observed().entries
    assert dropped(SHOWINGS, rows) == Dropped(missing=0, twice=0, late=0)
    bent = [*rows[1:], rows[5], replace(rows[4], serial="P999", cannot_judge="late")]
    assert dropped(SHOWINGS, bent) == Dropped(missing=1, twice=1, late=1)


def test_an_installation_counts_as_verified_only_with_the_published_bytes() -> None:
    run = finished()
    assert (run.verified.pairs, run.verified.verified, run.verified.security_faults) == (4, 4, 0)
    seen = observed()
    told = [
        replace(one, loaded="b" * 64) if one.edge == "edge-2" and one.release == 2 else one for one in records().told
    ]
    run = finished(replace(seen, records=replace(seen.records, told=told)))
    assert (run.verified.pairs, run.verified.verified) == (4, 3)


def test_the_conservation_document_in_four_numbers() -> None:
    one = {"stored": 5, "pending": 1, "lost": {"thinned": 2}, "missing": [[7, 9]]}
    found = account({"holds": False, "accounts": [one, {**one, "missing": []}]})
    assert (found.holds, found.stored, found.pending, found.lost, found.missing) == (False, 10, 2, 4, 3)
    assert not account({"holds": True, "accounts": []}).holds


def test_the_document_holds_every_figure_of_the_table_under_stable_names() -> None:
    document = json.loads(json.dumps(finished().document()))
    assert set(document) == {
        "schema_version", "scenario", "hours", "shares", "dropped_frames", "releases", "samples",
        "agent_peak_rss_bytes", "test", "seconds",
    }  # fmt: skip
    assert set(document["hours"][0]) == {
        "hour", "cell_type", "parts", "frames", "judged", "uploaded_share", "labelled_cells", "labels_given",
        "accuracy_truth", "accuracy_estimate", "defects", "escapes", "overkills", "unsure", "releases", "learned",
    }  # fmt: skip
    assert set(document["hours"][0]["learned"]) == {
        "adapter_release", "state", "bytes", "release", "seconds_to_live", "swap_pause_ms",
    }  # fmt: skip
    assert set(document["test"]["poly"]) == {
        "collapsed", "always_pass", "threshold_retuned_only", "loop", "joint_reference",
    }  # fmt: skip
    assert document["hours"][0]["accuracy_estimate"]["low"] == 0.6
