"""`edgeloop models cascade`: from two trained folders to cuts in a release, and the refusals on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from models.cli import app
from models.contracts.base import decode
from models.contracts.model_manifest import AdapterManifest
from models.nn import config as sizes
from models.nn.config import tiny
from models.runtime.bundle import read_starting
from tests.models.nn.toy import picture

RUNNER = CliRunner()


def run(*arguments: str | Path, code: int = 0) -> str:
    done = RUNNER.invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def images(root: Path, *, first: int, count: int, defect_name: str = "scratch") -> Path:
    for label, defect in (("good", False), (defect_name, True)):
        (root / label).mkdir(parents=True)
        for i in range(count):
            made = picture(first + 2 * i + defect, defect=defect)
            (root / label / f"{i}.png").write_bytes(cv2.imencode(".png", made)[1].tobytes())
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gate and a big model on bases of random weights, one that names its defect otherwise, and unseen images."""
    root = tmp_path_factory.mktemp("cascade")
    train, unseen = images(root / "train", first=0, count=24), images(root / "unseen", first=5000, count=40)
    other = images(root / "other", first=0, count=24, defect_name="dent")
    assert unseen.is_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sizes.PRESETS, "1.7b-tiny", tiny("1.7b"))
        for name, seed in (("base-gate", 1), ("base-big", 2)):
            run("build", "--preset", "1.7b-tiny", "--seed", seed, "--out", root / name)
        for name, base, data in (("gate", "gate", train), ("big", "big", train), ("strange", "gate", other)):
            run("train", "--line", f"caps-{name}", "--data", data, "--base", root / f"base-{base}", "--out",
                root / name, "--no-flips")  # fmt: skip
    return root


def calibrate(folder: Path, out: Path, *more: str, gate: str = "gate", data: str = "unseen", code: int = 0) -> str:
    return run("cascade", "calibrate", folder / gate, folder / "big", "--data", folder / data, "--out", out, *more,
               code=code)  # fmt: skip


def test_a_release_can_be_trained_under_a_later_number_and_on_a_region(folder: Path, tmp_path: Path) -> None:
    run("train", "--line", "caps-gate", "--data", folder / "train", "--base", folder / "base-gate", "--out",
        tmp_path / "later", "--no-flips", "--release", "3", "--roi", "0.25,0,0.5,1")  # fmt: skip
    found = read_starting(tmp_path / "later")
    assert (found.adapter.release, found.adapter.model_version) == (3, "caps-gate-r3")
    assert found.adapter.roi == (0.25, 0.0, 0.5, 1.0)
    assert found.base == read_starting(folder / "gate").base
    shown = json.loads(run("show", tmp_path / "later", "--json"))["release"]
    assert (shown["release"], shown["roi"]) == (3, [0.25, 0.0, 0.5, 1.0])
    assert "roi: whole frame" in run("show", folder / "gate")
    assert "roi: [0.25, 0.0, 0.5, 1.0]" in run("show", tmp_path / "later")


WIDE = ("--added-escape", "0.3", "--added-overkill", "0.3")


def test_cuts_are_picked_judged_on_other_images_and_travel_in_the_manifest(folder: Path, tmp_path: Path) -> None:
    document = json.loads(calibrate(folder, tmp_path / "cascade.json", *WIDE, "--json"))
    assert document == json.loads((tmp_path / "cascade.json").read_text())
    assert document["ok"]
    assert document["picked_on"]["images"] + document["judged_on"]["images"] == 80
    assert document["judged_on"]["escalation"] < 0.5
    assert document["curve"][-1]["escalation"] == 1.0
    assert document["gate_pretrained"].startswith("none")
    assert document["left_out"] == {"copies": 0, "own": 0}
    run("cascade", "apply", folder / "gate", "--cuts", tmp_path / "cascade.json", "--out", tmp_path / "gated")
    made, before = read_starting(tmp_path / "gated").adapter, read_starting(folder / "gate").adapter
    assert made.cascade.calibrated_against == read_starting(folder / "big").adapter.digest()
    assert made.model_copy(update={"cascade": None}) == before
    run("cascade", "apply", folder / "gate", "--cuts", tmp_path / "cascade.json", "--out", tmp_path / "second",
        "--release", "2")  # fmt: skip
    second = read_starting(tmp_path / "second").adapter
    assert (second.release, second.model_version) == (2, "caps-gate-r2")
    assert second.model_copy(update={"release": 1, "model_version": made.model_version}) == made
    assert decode(AdapterManifest, made.encode()) == made
    assert "exists already" in run(
        "cascade", "apply", folder / "gate", "--cuts", tmp_path / "cascade.json", "--out", tmp_path / "gated", code=2
    )
    assert "another gate" in run(
        "cascade", "apply", folder / "big", "--cuts", tmp_path / "cascade.json", "--out", tmp_path / "x", code=2
    )


def test_a_limit_too_few_images_can_certify_is_refused_with_what_is_missing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cascade.json"
    said = calibrate(folder, out, "--added-escape", "0.01", "--added-overkill", "0.01", code=4)
    assert "no escalation below 100 % meets the limits" in said
    assert "299 defects" in said
    assert not json.loads(out.read_text())["ok"]
    assert "nothing was written" in run("cascade", "apply", folder / "gate", "--cuts", out, "--out", tmp_path / "x",
                                        code=4)  # fmt: skip
    assert not (tmp_path / "x").exists()


def test_models_and_images_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cascade.json"
    assert "'dent' is none of the big model's" in calibrate(folder, out, *WIDE, gate="strange", code=2)
    dents = images(tmp_path / "dents", first=9000, count=4, defect_name="dent")
    assert "label 'dent' is no class" in calibrate(folder, out, *WIDE, data=str(dents), code=2)
    assert "edgeloop models train made" in calibrate(folder, out, *WIDE, gate="base-gate", code=2)
    assert not out.exists()


def test_what_the_limits_and_ok_mean_is_printed(folder: Path, tmp_path: Path) -> None:
    said = calibrate(folder, tmp_path / "cascade.json", *WIDE)
    assert "each limit holds at 95 % by itself; both together hold at 90 % at least" in said
    assert "the other half does not rule them out" in said


def test_copies_and_the_models_own_images_do_not_count(folder: Path, tmp_path: Path) -> None:
    """Twice the images are not twice the evidence, and a model knows what it learned."""
    data = tmp_path / "data"
    shutil.copytree(folder / "unseen", data)
    shutil.copytree(folder / "unseen/good", data / "good", dirs_exist_ok=True, copy_function=_renamed("again"))
    shutil.copytree(folder / "train/scratch", data / "scratch", dirs_exist_ok=True, copy_function=_renamed("own"))
    done = RUNNER.invoke(app, ["cascade", "calibrate", str(folder / "gate"), str(folder / "big"), "--data", str(data),
                               "--out", str(tmp_path / "cuts.json"), *WIDE])  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "40 of 144 images are copies" in done.stderr
    assert "24 of 144 images are among those a model learned" in done.stderr
    document = json.loads((tmp_path / "cuts.json").read_text())
    assert document["left_out"] == {"copies": 40, "own": 24}
    assert document["picked_on"]["images"] + document["judged_on"]["images"] == 80


def _renamed(prefix: str) -> Callable[[str, str], None]:
    def copy(source: str, to: str) -> None:
        shutil.copyfile(source, Path(to).with_name(f"{prefix}-{Path(to).name}"))

    return copy


def test_data_that_can_judge_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cuts.json"
    assert "every image of" in calibrate(folder, out, *WIDE, data="train", code=2)
    twice = tmp_path / "twice"
    shutil.copytree(folder / "unseen", twice)
    shutil.copyfile(twice / "good/0.png", twice / "scratch/wrong.png")
    assert "the same image has two labels" in calibrate(folder, out, *WIDE, data=str(twice), code=2)
    assert "are the same model" in run("cascade", "calibrate", folder / "big", folder / "big", "--data",
                                       folder / "unseen", "--out", out, *WIDE, code=2)  # fmt: skip
    assert not out.exists()


@pytest.mark.parametrize("value", ["0", "-0.1", "nan", "1.5"])
@pytest.mark.parametrize("option", ["--added-escape", "--added-overkill"])
def test_a_risk_of_zero_is_proved_by_no_number_of_images(folder: Path, tmp_path: Path, option: str, value: str) -> None:
    said = calibrate(folder, tmp_path / "cuts.json", *WIDE, f"{option}={value}", code=2)
    assert f"{option} {value}: no number of images proves a risk of zero" in said


def test_a_place_that_cannot_be_written_is_found_out_before_scoring(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out, words in ((tmp_path, "is a folder"), (tmp_path / "file/cuts.json", "cannot be written")):
        said = calibrate(folder, out, *WIDE, code=2)
        assert words in said
        assert "scoring" not in said


def hand_made(folder: Path, tmp_path: Path, **changed: object) -> Path:
    gate, big = (read_starting(folder / name).adapter.digest() for name in ("gate", "big"))
    cuts = {"certain_pass_below": 0.0001, "calibrated_against": big}
    path = tmp_path / "cuts.json"
    path.write_text(json.dumps({"ok": True, "gate": gate, "big": big, "cuts": cuts} | changed))
    return path


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ok": "no"}, "ok must be true or false"),
        ({"ok": 1}, "ok must be true or false"),
        ({"cuts": {}}, "has no cut"),
        ({"cuts": {"certain_pass_below": 0.0001}}, "do not name the big model"),
        ({"big": "a" * 64}, "do not name the big model"),
        ({"cuts": {"certain_reject_above": 0.0, "calibrated_against": None}}, "do not name the big model"),
    ],
)
def test_cuts_that_calibrate_did_not_grant_are_refused(
    folder: Path, tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    said = run("cascade", "apply", folder / "gate", "--cuts", hand_made(folder, tmp_path, **changed), "--out",
               tmp_path / "x", code=2)  # fmt: skip
    assert words in said
    assert not (tmp_path / "x").exists()


def test_a_gate_is_not_copied_into_itself_nor_to_where_it_cannot_be(folder: Path, tmp_path: Path) -> None:
    cuts = hand_made(folder, tmp_path)
    for out, words in ((folder / "gate/sub", "own folder"), (cuts / "sub", "cannot be written")):
        said = run("cascade", "apply", folder / "gate", "--cuts", cuts, "--out", out, code=2)
        assert words in said
        assert said.count("\n") == 1
        assert not out.exists()


def test_what_a_bench_cannot_use_is_one_line(folder: Path, tmp_path: Path) -> None:
    nowhere = run("cascade", "bench", folder / "gate", tmp_path / "nowhere", "--data", folder / "unseen", code=2)
    assert "give a folder that edgeloop models train or build made" in nowhere
    bad = images(tmp_path / "bad", first=0, count=2)
    (bad / "good/0.png").write_bytes(b"not an image")
    torn = run("cascade", "bench", folder / "gate", folder / "base-big", "--data", bad, code=2)
    assert f"{bad / 'good/0.png'} cannot be read" in torn
    assert (nowhere.count("\n"), torn.count("\n")) == (1, 1)


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"cuts": {"certain_pass_below": 3}, "ok": true}'])
def test_a_file_that_calibrate_did_not_write_is_refused(folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "cuts.json").write_text(text)
    said = run("cascade", "apply", folder / "gate", "--cuts", tmp_path / "cuts.json", "--out", tmp_path / "x", code=2)
    assert "not what calibrate writes" in said


def test_the_bench_prints_both_shares_as_they_came_out(folder: Path) -> None:
    arguments = ["cascade", "bench", folder / "gate", folder / "base-big", "--data", folder / "unseen", "--parts", "40"]
    arguments += ["--threads", "1", "--audit", "0.2", "--json"]
    done = RUNNER.invoke(app, list(map(str, arguments)))
    assert done.exit_code in (0, 1), done.stderr  # two models of one size: what is checked here is the arithmetic
    found = json.loads(done.stdout)
    assert found["escalated"] == 4
    assert 0 < found["audited"] < 20
    share = (found["escalated"] + found["audited"]) / 40
    assert found["target"] == pytest.approx(0.8 / (found["gate_ms"] / found["big_ms"] + share))
    assert found["speedup"] == pytest.approx(40 * found["big_ms"] / 1e3 / found["cascade_s"])
    assert found["ok"] == (done.exit_code == 0) == (found["speedup"] >= found["target"])
    assert "more than all parts" in run(*arguments[:-3], "--escalation", "0.9", "--audit", "0.2", code=2)
