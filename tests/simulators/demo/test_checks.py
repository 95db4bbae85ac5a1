"""Every check holds on a good run and fails on a run that is bad in its one way."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from simulators.demo.checks import Check, checks
from simulators.demo.evaluate import Interval
from simulators.demo.figures import Figures, Learned
from simulators.demo.run import Outcome
from simulators.demo.screen import Screen
from tests.simulators.demo.tiny_run import finished


def quick(run: Figures) -> Figures:
    """The tiny run's belt is too slow for a release to be live in 25 s; this one's is not."""
    return learned(run, seconds_to_live=20.0)


def learned(run: Figures, **change: float | None) -> Figures:
    first = run.hours[0]
    assert first.learned is not None
    one: Learned = replace(first.learned, **change)  # type: ignore[arg-type]
    return replace(run, hours=[replace(first, learned=one), *run.hours[1:]])


def measured(**change: object) -> Callable[[Figures], Figures]:
    return lambda run: replace(run, test=replace(run.test, **change))  # type: ignore[arg-type]


def gains(name: str, gain: Interval) -> Callable[[Figures], Figures]:
    return lambda run: replace(run, test=replace(run.test, gains={**run.test.gains, name: gain}))


def test_a_good_run_passes_every_check() -> None:
    assert [check for check in checks(quick(finished())) if not check.ok] == []


BAD: list[tuple[str, Callable[[Figures], Figures]]] = [
    ("nothing_lost", lambda run: replace(run, account=replace(run.account, holds=False))),
    ("nothing_lost", lambda run: replace(run, account=replace(run.account, missing=1))),
    ("releases_verified", lambda run: replace(run, verified=replace(run.verified, verified=3))),
    ("releases_verified", lambda run: replace(run, verified=replace(run.verified, security_faults=1))),
    ("releases_verified", lambda run: replace(run, verified=replace(run.verified, pairs=0, verified=0))),
    ("no_frame_dropped", lambda run: replace(run, dropped=replace(run.dropped, missing=1))),
    ("no_frame_dropped", lambda run: replace(run, dropped=replace(run.dropped, late=1))),
    ("forgetting_on_mono", measured(forgetting=Interval(-0.05, -0.08, -0.021))),
    ("agent_memory", lambda run: replace(run, peak_rss_bytes={"edge-1": 351_000_000})),
    ("agent_memory", lambda run: replace(run, peak_rss_bytes={})),
    ("uploaded", lambda run: replace(run, shares=replace(run.shares, poly_uploaded_share=0.31))),
    ("labelled", lambda run: replace(run, shares=replace(run.shares, poly_labelled_share=0.31))),
    ("recovered_balanced_accuracy", measured(recovered_balanced_accuracy=0.84)),
    ("recovered_balanced_accuracy", measured(recovered_balanced_accuracy=None)),
    ("recovered_auroc", measured(recovered_auroc=0.84)),
    ("beats_always_pass", gains("always_pass", Interval(0.1, -0.01, 0.2))),
    ("beats_threshold_retuned_only", gains("threshold_retuned_only", Interval(0.1, -0.01, 0.2))),
    ("label_to_live", lambda run: learned(run, seconds_to_live=25.1)),
    ("label_to_live", lambda run: learned(run, seconds_to_live=None)),
    ("swap_pause", lambda run: learned(run, swap_pause_ms=20_001.0)),
    ("swap_pause", lambda run: learned(run, swap_pause_ms=None)),
    ("adapter_size", lambda run: learned(run, bytes=2_000_001)),
]


@pytest.mark.parametrize(("name", "bend"), BAD)
def test_each_check_can_fail(name: str, bend: Callable[[Figures], Figures]) -> None:
    failed = [check.name for check in checks(bend(quick(finished()))) if not check.ok]
    assert failed == [name]


def test_forgetting_within_its_interval_is_no_failure() -> None:
    run = measured(forgetting=Interval(-0.05, -0.08, -0.019))(quick(finished()))
    assert all(check.ok for check in checks(run))


def test_a_person_who_labels_is_not_graded() -> None:
    names = {check.name for check in checks(finished(by_hand=True))}
    assert "nothing_lost" in names
    assert "recovered_auroc" not in names


def shown(run: Figures, found: list[Check]) -> str:
    out = io.StringIO()
    console = Console(file=out, width=220)
    Screen(progress=console, results=console).results(run, found)
    return out.getvalue()


def test_the_tables_say_what_was_measured() -> None:
    run = quick(finished())
    text = shown(run, checks(run))
    for words in (
        "75.0 %",
        "80.0 % (60-90)",
        "1 of 2",
        "20.0 s",
        "20 ms",
        "1.50 MB",
        "94 % / 91 %",
        "always pass",
    ):
        assert words in text
    assert "9 of 9 checks hold. 5 of 5 targets met." in text
    assert "FAIL" not in text


def test_a_failed_check_is_a_word_and_not_only_a_colour() -> None:
    run = finished()
    assert "missed  label to live" in shown(run, checks(run))


def test_a_missed_target_does_not_decide_the_exit_code_and_a_failed_check_does() -> None:
    found = checks(finished())
    assert {check.name for check in found if not check.required} == {
        "recovered_balanced_accuracy",
        "recovered_auroc",
        "beats_always_pass",
        "beats_threshold_retuned_only",
        "label_to_live",
    }
    slow = [replace(check, ok=check.required) for check in found]
    assert Outcome(finished(), slow, "").ok
    lost = [replace(check, ok=check.name != "nothing_lost") for check in found]
    assert not Outcome(finished(), lost, "").ok
