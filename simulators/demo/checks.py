"""What must hold at the end of a run, and what is aimed at.

Each check can fail, and the run's exit code is 0 only if all required ones hold: nothing lost, nothing unverified,
nothing dropped, nothing forgotten, budgets kept. How much of a gap was closed and how fast are targets: one seed has
one small test set, whose gap may be nearly nothing, and one machine's load. They are shown as met or missed, and
`edgeloop bench loop` judges them over five seeds.

When a person labels by hand, what the loop learned is theirs to answer for: those checks are left out, and said to be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulators.demo.evaluate import Interval
from simulators.demo.figures import Figures, Learned

MAX_RSS_BYTES = 350 * 1_000_000
MAX_SHARE = 0.30
MIN_RECOVERED = 0.85
MAX_FORGETTING = 0.02
MAX_TO_LIVE_S = 25.0
MAX_ADAPTER_BYTES = 2 * 1_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """`name` is stable; `detail` is for a person. A target is a check that does not decide the exit code."""

    name: str
    ok: bool
    detail: str
    required: bool = True


def nothing_lost(run: Figures) -> Check:
    one = run.account
    text = f"{one.stored} stored, {one.pending} pending, {one.lost} declared lost, {one.missing} missing"
    return Check("nothing_lost", one.holds and one.missing == 0, text)


def releases_verified(run: Figures) -> Check:
    one = run.verified
    good = one.pairs > 0 and one.verified == one.pairs and one.security_faults == 0
    return Check(
        "releases_verified", good, f"{one.verified} of {one.pairs} installations of {one.releases_run} releases"
    )


def no_frame_dropped(run: Figures) -> Check:
    one = run.dropped
    return Check("no_frame_dropped", one.total == 0, f"{one.missing} missing, {one.twice} twice, {one.late} late")


def forgetting(run: Figures) -> Check:
    """Fails only if the paired 95 % interval lies wholly beyond -2 points."""
    one = run.test.forgetting
    return Check("forgetting_on_mono", one.high >= -MAX_FORGETTING, _points(one))


def agent_memory(run: Figures) -> Check:
    peak = max(run.peak_rss_bytes.values(), default=0)
    return Check("agent_memory", 0 < peak <= MAX_RSS_BYTES, f"peak {peak / 1e6:.0f} MB of {MAX_RSS_BYTES / 1e6:.0f}")


def labelled(run: Figures) -> Check:
    share = run.shares.poly_labelled_share
    return Check("labelled", share <= MAX_SHARE, f"{share:.1%} of {run.shares.poly_shown} poly cells")


def uploaded(run: Figures) -> Check:
    share = run.shares.poly_uploaded_share
    return Check("uploaded", share <= MAX_SHARE, f"{share:.1%} of {run.shares.poly_shown} poly cells")


def _recovered(name: str, share: float | None) -> Check:
    text = "no gap to close" if share is None else f"{share:.0%} of the gap, {MIN_RECOVERED:.0%} wanted"
    return Check(f"recovered_{name}", share is not None and share >= MIN_RECOVERED, text, required=False)


def recovered_balanced_accuracy(run: Figures) -> Check:
    return _recovered("balanced_accuracy", run.test.recovered_balanced_accuracy)


def recovered_auroc(run: Figures) -> Check:
    return _recovered("auroc", run.test.recovered_auroc)


def _beats(run: Figures, rival: str) -> Check:
    gain = run.test.gains[rival]
    return Check(f"beats_{rival}", gain.low > 0, _points(gain), required=False)


def beats_always_pass(run: Figures) -> Check:
    return _beats(run, "always_pass")


def beats_retuned(run: Figures) -> Check:
    return _beats(run, "threshold_retuned_only")


def _lives(run: Figures) -> list[Learned]:
    return [hour.learned for hour in run.hours if hour.learned is not None and hour.learned.release is not None]


def label_to_live(run: Figures) -> Check:
    """The last hour's release may not have reached a part before the belt stopped; every other one must have."""
    lives = _lives(run)
    seconds = [one.seconds_to_live for one in lives if one.seconds_to_live is not None]
    stuck = sum(one.seconds_to_live is None for one in lives[:-1])
    text = f"slowest {max(seconds):.1f} s of {len(seconds)} releases" if seconds else "no release went live"
    text += f", {stuck} never live everywhere" if stuck else ""
    met = bool(seconds) and not stuck and max(seconds) <= MAX_TO_LIVE_S
    return Check("label_to_live", met, text, required=False)


def swap_pause(run: Figures) -> Check:
    pauses = [one.swap_pause_ms for one in _lives(run) if one.swap_pause_ms is not None]
    wait = f"a part at a swap waited {max(pauses, default=0):.0f} ms at most"
    text = f"{wait}, a frame comes every {run.frame_interval_ms:.0f} ms" if pauses else "no swap"
    return Check("swap_pause", bool(pauses) and max(pauses) <= run.frame_interval_ms, text)


def adapter_size(run: Figures) -> Check:
    sizes = [one.bytes for one in _lives(run)]
    text = f"largest {max(sizes) / 1e6:.2f} MB" if sizes else "no adapter release"
    return Check("adapter_size", bool(sizes) and max(sizes) <= MAX_ADAPTER_BYTES, text)


def _points(one: Interval) -> str:
    return f"{100 * one.value:+.1f} points ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


ALWAYS: tuple[Callable[[Figures], Check], ...] = (
    nothing_lost,
    releases_verified,
    no_frame_dropped,
    forgetting,
    agent_memory,
    uploaded,
)
LEARNING: tuple[Callable[[Figures], Check], ...] = (
    labelled,
    recovered_balanced_accuracy,
    recovered_auroc,
    beats_always_pass,
    beats_retuned,
    label_to_live,
    swap_pause,
    adapter_size,
)


def checks(run: Figures) -> list[Check]:
    """All that apply to the run."""
    applied = ALWAYS if run.scenario.label_by_hand else (*ALWAYS, *LEARNING)
    return [check(run) for check in applied]
