"""The coin of the estimation queue: it evens weights, keeps the configured mean, and is recorded as it was tossed."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloud.db.tables import Sample, Task
from cloud.ingest.coin import FLOOR, RECENT, label_probability
from cloud.ingest.rules import ESTIMATE, uniform
from cloud.settings import ReviewSection
from tests.cloud.kit import Plant, Shot, png

SHARE = ReviewSection().estimate_share
inclusions = st.floats(min_value=0.0, max_value=1.0)


def stream(count: int, *, seed: int) -> list[float]:
    """What a selector sends: many easy parts seldom kept, some hard ones always."""
    rng = np.random.default_rng(seed)
    easy = rng.random(count) < 0.6
    return [float(pi) for pi in np.where(easy, rng.uniform(0.02, 0.2, count), rng.uniform(0.5, 1.0, count))]


def coins(uploads: list[float], *, share: float) -> NDArray[np.float64]:
    recent: deque[float] = deque(maxlen=RECENT)
    found = []
    for upload in uploads:
        found.append(label_probability(upload, recent, share=share))
        recent.append(upload)
    return np.array(found)


def test_the_first_sample_has_the_configured_share() -> None:
    assert label_probability(0.03, [], share=0.3) == pytest.approx(0.3)


def test_samples_that_are_alike_have_the_configured_share() -> None:
    assert label_probability(0.2, [0.2] * 50, share=0.3) == pytest.approx(0.3)


def test_within_its_bounds_it_is_the_inverse_root() -> None:
    recent = [0.04, 0.25, 0.16, 1.0]
    often, seldom = (label_probability(pi, [*recent, 0.25, 0.04], share=0.3) for pi in (0.25, 0.04))
    assert seldom > often
    same = [*recent, 0.25, 0.04]
    low, high = label_probability(0.25, [*same, 0.04], share=0.3), label_probability(0.04, [*same, 0.25], share=0.3)
    assert high / low == pytest.approx((0.25 / 0.04) ** 0.5)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0])
def test_the_mean_is_kept_even_where_the_coin_is_cut(share: float) -> None:
    """At 0.9 an easy part would need more than 1: what is cut there is given to the others."""
    found = coins(stream(4000, seed=1), share=share)
    assert found.mean() == pytest.approx(share, rel=0.02)
    assert found.max() <= 1.0
    assert found.min() >= min(FLOOR, share) - 1e-12


def test_another_kind_of_parts_moves_the_factor_within_a_window() -> None:
    easy = [0.03] * 1000
    found = coins(easy + [0.9] * 1000, share=0.3)
    assert found[-500:].mean() == pytest.approx(0.3, rel=0.01)


@given(upload=inclusions, recent=st.lists(inclusions, max_size=40), share=st.floats(min_value=1e-3, max_value=1.0))
@settings(max_examples=200, deadline=None)
def test_it_is_a_probability_whatever_a_box_claims(upload: float, recent: list[float], share: float) -> None:
    """Two tiny numbers multiply to 0: that row is stored, and must not stop the line for ever."""
    found = label_probability(upload, recent, share=share)
    assert min(FLOOR, share) <= found <= 1.0


@given(window=st.lists(st.floats(min_value=1e-4, max_value=1.0), min_size=1, max_size=40), share=st.floats(0.05, 1.0))
@settings(max_examples=200, deadline=None)
def test_over_a_window_the_probabilities_have_the_mean_exactly(window: list[float], share: float) -> None:
    """Each sample's factor is that of the window with itself, so exchangeable samples keep the share without bias."""
    every = [label_probability(pi, window[:at] + window[at + 1 :], share=share) for at, pi in enumerate(window)]
    assert np.mean(every) == pytest.approx(share, rel=1e-9)


def test_weights_of_what_was_drawn_add_up_to_the_parts() -> None:
    """Horvitz and Thompson under a coin that depends on what came before."""
    uploads = stream(400, seed=3)
    probabilities = coins(uploads, share=0.3)
    tosses = np.random.default_rng(4).random((4000, len(uploads))) < probabilities
    assert ((tosses / probabilities).sum(axis=1)).mean() == pytest.approx(len(uploads), rel=0.01)


def upload_all(plant: Plant, pis: list[float]) -> None:
    for seq, pi in enumerate(pis, start=1):
        plant.clock.advance(1)
        assert plant.upload(Shot(seq, png(seq), pi_select=pi, pi_survive=0.5)) == "stored"


def test_ingest_records_what_the_coin_was_tossed_with(plant: Plant) -> None:
    pis = stream(40, seed=5)
    upload_all(plant, pis)
    tasks = {task.sid: task for task in plant.rows(Task)}
    samples = sorted(plant.rows(Sample), key=lambda sample: sample.seq)
    expected = coins([pi * 0.5 for pi in pis], share=SHARE)
    assert [tasks[sample.sid].pi_label for sample in samples] == pytest.approx(list(expected))
    for sid, task in tasks.items():
        assert (task.queue == ESTIMATE) == (uniform(0, "queue", sid) < task.pi_label)
    assert len({task.queue for task in tasks.values()}) == 2


def test_each_line_has_its_own_factor_and_a_restart_changes_nothing(plant: Plant) -> None:
    upload_all(plant, [0.02] * 5)
    plant.restart()
    with plant.begin() as session:
        session.query(Sample).filter(Sample.seq < 5).update({"line": "other"})
    assert plant.upload(Shot(6, png(6), pi_select=1.0)) == "stored"
    (task,) = [one for one in plant.rows(Task) if one.sid == Shot(6, b"").sid]
    assert task.pi_label == pytest.approx(label_probability(1.0, [0.01], share=SHARE))


def test_only_the_newest_samples_count(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.ingest.repository.RECENT", 3)
    pis = [0.02, 0.03, 0.5, 0.6, 0.7, 0.04]
    upload_all(plant, pis)
    newest = max(plant.rows(Sample), key=lambda sample: sample.seq)
    (task,) = [one for one in plant.rows(Task) if one.sid == newest.sid]
    assert task.pi_label == pytest.approx(label_probability(0.02, [0.25, 0.3, 0.35], share=SHARE))


def test_a_box_that_claims_next_to_nothing_does_not_stop_the_line(plant: Plant) -> None:
    assert plant.upload(Shot(1, png(1), pi_select=1e-300, pi_survive=1e-300)) == "stored"
    for seq in (2, 3, 4):
        assert plant.upload(Shot(seq, png(seq))) == "stored"
    assert all(FLOOR <= task.pi_label <= 1 for task in plant.rows(Task))
