"""A model that is published after the first: the same base again, the gate, and the channel; or the number to take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloud.first_release import publish_bundle
from cloud.http import Problem
from models.contracts.model_manifest import CascadeCuts
from models.runtime.bundle import Bundle
from tests.cloud.trainer import test_service as loop
from tests.cloud.trainer.test_service import LINE, Site

site = loop.site
CUTS = CascadeCuts(certain_pass_below=0.0001, certain_reject_above=0.9999, calibrated_against="a" * 64)


def numbered(folder: Path, release: int, *, cuts: CascadeCuts | None = CUTS) -> Bundle:
    """What the line runs already, under another number and with cuts: as `cascade apply --release` writes it."""
    folder.mkdir(exist_ok=True)
    made = loop.starting_bundle(folder)
    named = {"release": release, "model_version": f"{LINE}-r{release}", "cascade": cuts}
    return replace(made, adapter=made.adapter.model_copy(update=named))


def test_a_gate_gets_cuts_and_other_cuts_through_gate_and_channel(site: Site, tmp_path: Path) -> None:
    second = numbered(tmp_path / "second", 2)
    done = publish_bundle(site.services, second, site.keys)
    assert publish_bundle(site.services, second, site.keys) == done, "doing it again changes nothing"
    later = CascadeCuts(certain_pass_below=0.0002)
    for number, bundle in ((2, second), (3, numbered(tmp_path / "third", 3, cuts=later))):
        site.clock.us += 60_000_000
        publish_bundle(site.services, bundle, site.keys)
        assert site.work("gate")
        found = site.candidates()[-1]
        assert (found.release, found.state) == (number, "accepted"), found.report["summary"]
        site.clock.us += 60_000_000
        site.release()
        path = site.services.repository.current_channel(LINE, "stable").adapter.path
        assert path.endswith(f"r{number:06d}.manifest.json")
        assert site.candidates()[-1].manifest["cascade"] == bundle.adapter.cascade.model_dump(exclude_none=True)


def test_the_same_model_with_the_same_cuts_is_not_sent_again(site: Site, tmp_path: Path) -> None:
    publish_bundle(site.services, numbered(tmp_path / "again", 2, cuts=None), site.keys)
    assert site.work("gate")
    assert site.candidates()[-1].state == "refused"
    assert "nothing new to send" in site.candidates()[-1].report["summary"]


@pytest.mark.parametrize(
    ("release", "cuts", "words"),
    [
        (1, CUTS, "edgeloop models cascade apply ... --release 2"),
        (1, None, ""),
        (5, CUTS, "is not next: 2 is"),
    ],
)
def test_a_number_that_is_gone_or_leaves_a_gap_is_refused_with_the_next(
    site: Site, tmp_path: Path, release: int, cuts: CascadeCuts | None, words: str
) -> None:
    bundle = numbered(tmp_path / "other", release, cuts=cuts)
    if not words:
        bundle = replace(bundle, adapter=bundle.adapter.model_copy(update={"model_version": "trained again"}))
        words = "Publish it as release 2: edgeloop models train ... --release 2"
    with pytest.raises(Problem, match=words):
        publish_bundle(site.services, bundle, site.keys)
    assert len(site.candidates()) == 1


def test_nothing_is_published_beside_a_lesson(site: Site, tmp_path: Path) -> None:
    """Both would be the adapter role's next version, and the release's number would be lost."""
    site.ask()
    with pytest.raises(Problem, match="is learning"):
        publish_bundle(site.services, numbered(tmp_path / "second", 2), site.keys)
    assert site.work("train")
    assert publish_bundle(site.services, numbered(tmp_path / "second", 2), site.keys)["release"] == 2
