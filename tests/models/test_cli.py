"""`edgeloop models`: refusals before minutes of training, each in a line that says what is missing."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from models.cli import app
from models.contracts.base import sha256_hex
from models.images_cli import read_roi
from models.nn.starting import CannotTrain, StartingSettings, build_starting
from models.runtime.bundle import CHECKPOINT, COMPLETE, read_starting, write_starting
from tests.models.nn.toy import picture


def call(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stderr


def folder(root: Path, **classes: int) -> Path:
    seed = 0
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for _ in range(count):
            seed += 1
            (root / name / f"{seed}.png").write_bytes(cv2.imencode(".png", picture(seed, defect=name != "good"))[1])
    return root


def train(data: Path, out: Path, *more: str) -> tuple[int, str]:
    return call("train", "--line", "plates", "--data", str(data), "--out", str(out), *more)


@pytest.mark.parametrize(
    ("classes", "more", "code", "words"),
    [
        ({"good": 8, "scratch": 8}, (), 4, "too few training images"),
        ({"fine": 8, "scratch": 8}, (), 4, "name the good ones with --good"),
        ({"good": 8}, (), 4, "no defect class"),
        ({}, (), 4, "has no images"),
        ({"good": 8, "scratch": 8}, ("--must-catch", "dent"), 2, "no such defect class"),
        ({"good": 8, "scratch": 8}, ("--preset", "huge"), 2, "no preset 'huge'"),
        ({"good": 40, "scratch": 40}, ("--preset", "1.7b"), 2, "needs a published checkpoint"),
        ({}, ("--preset", "1.7b"), 2, "Presets that can be trained: nano"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    tmp_path: Path, classes: dict[str, int], more: tuple[str, ...], code: int, words: str
) -> None:
    data = folder(tmp_path / "data", **classes)
    data.mkdir(exist_ok=True)
    found = train(data, tmp_path / "out", *more)
    assert found[0] == code
    assert words in found[1]
    assert found[1].count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("roi", "words"),
    [
        ("0.1,0.2,0.3", "write x,y,width,height"),
        ("a,b,c,d", "write x,y,width,height"),
        ("nan,0,1,1", "write x,y,width,height"),
        ("10,20,300,400", "shares of the frame"),
        ("-0.1,0,0.5,0.5", "shares of the frame"),
        ("0.1,0.1,0,0.5", "above 0"),
        ("0.6,0,0.5,1", "beyond the frame"),
    ],
)
def test_a_region_that_is_none_is_refused(tmp_path: Path, roi: str, words: str) -> None:
    data = folder(tmp_path / "data", good=8, scratch=8)
    code, said = train(data, tmp_path / "out", f"--roi={roi}")
    assert (code, said.count("\n")) == (2, 1), said
    assert words in said


def test_a_later_release_with_a_base_of_its_own_gives_the_base_a_later_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry keeps a family's version for ever: the base of release 1 has version 1 already."""
    asked: list[StartingSettings] = []

    def capture(out: Path, images: object, task: dict[str, object]) -> None:
        asked.append(task["settings"])
        raise CannotTrain("seen enough")

    monkeypatch.setattr("models.cli._trained", capture)
    data = folder(tmp_path / "data", good=40, scratch=40)
    assert train(data, tmp_path / "out", "--release", "2", "--roi", "0,0,0.5,1")[0] == 4
    (found,) = asked
    assert (found.number, found.version, found.roi) == (2, 2, (0.0, 0.0, 0.5, 1.0))


def test_a_region_up_to_the_edge_is_one() -> None:
    assert read_roi("0.7, 0,0.3 ,1") == (0.7, 0.0, 0.3, 1.0)
    assert read_roi("") is None


def test_an_unreadable_image_is_refused(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", good=40, scratch=40)
    for path in (data / "good").iterdir():
        path.write_bytes(b"not an image")
    code, said = train(data, tmp_path / "out")
    assert code == 4
    assert "cannot be read" in said
    assert str(data / "good") in said


@pytest.mark.parametrize("listed", [False, True])
def test_the_one_bad_image_is_named_by_its_path(tmp_path: Path, listed: bool) -> None:
    data = folder(tmp_path / "data", good=40, scratch=40)
    images = sorted(data.glob("*/*.png"))
    if listed:
        rows = [f"{path.relative_to(data)},{path.parent.name}" for path in images]
        (data / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    images[7].write_bytes(b"not an image")
    code, said = train(data, tmp_path / "out")
    assert (code, said.count("\n")) == (4, 1), said
    assert f"{images[7]} cannot be read: not a PNG, JPEG or BMP image" in said
    assert not (tmp_path / "out").exists()


def test_an_image_that_cannot_be_opened_is_named_by_its_path(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", good=8, scratch=8)
    (data / "good" / "folder.png").mkdir()
    code, said = train(data, tmp_path / "out")
    assert (code, said.count("\n")) == (2, 1), said
    assert f"the image {data / 'good' / 'folder.png'} cannot be opened" in said


def test_a_size_without_a_tower_is_refused_below_the_command_too() -> None:
    with pytest.raises(CannotTrain, match="published checkpoint"):
        build_starting(
            [], validation=[], line="plates", classes=[], settings=StartingSettings(preset="1.7b"), seed=0,
            now=datetime.now(UTC),
        )  # fmt: skip


def test_a_model_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / COMPLETE).touch()
    assert train(folder(tmp_path / "data", good=1), tmp_path / "out")[0] == 4


def test_a_line_name_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    code, said = call("train", "--line", "Bad Line!", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "lower-case letters" in said


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"name,label\nx,good\n", "file and label"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"file,label\nx.png,good\n", "x.png"),
        (b"file,label\nx.png\n", "lacks its file or its label: x.png"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path, table: bytes, words: str) -> None:
    (tmp_path / "labels.csv").write_bytes(table)
    code, said = train(tmp_path, tmp_path / "out")
    assert code == 2
    assert words in said


@pytest.mark.parametrize("command", ["show", "parity"])
def test_a_folder_without_a_model_is_one_line(tmp_path: Path, command: str) -> None:
    more = ("--data", str(tmp_path)) if command == "parity" else ()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, words in (("nothing", "does not exist"), ("empty", "holds no finished model"), ("file", "is a file")):
        code, said = call(command, str(tmp_path / name), *more)
        assert (code, said.count("\n")) == (1, 1), said
        assert f"{tmp_path / name} {words}: give a folder that edgeloop models train made" in said


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.cloud.trainer.test_service import starting_bundle

    out = tmp_path_factory.mktemp("trained")
    write_starting(out, starting_bundle(tmp_path_factory.mktemp("made")))
    return out


def test_a_model_is_shown(trained: Path) -> None:
    done = CliRunner().invoke(app, ["show", str(trained), "--json"])
    assert done.exit_code == 0
    shown = json.loads(done.stdout)
    assert (shown["release"]["line"], shown["release"]["classes"]) == ("plates", ["good", "scratch"])
    assert "  preset: " in CliRunner().invoke(app, ["show", str(trained)]).stdout


def test_parity_holds_and_a_tolerance_that_is_too_small_fails(trained: Path, tmp_path: Path) -> None:
    data = folder(tmp_path / "data", good=4, scratch=4)
    asked = ["parity", str(trained), "--data", str(data), "--layers", "3"]
    done = CliRunner().invoke(app, [*asked, "--tolerance", "0.5", "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert found["frames"] == 8
    assert found["rows"]["float32"]["embedding"] < 1e-4 < found["rows"]["int8"]["embedding"]
    assert found["rows"]["shipped"]["embedding"] < 0.05
    assert len(found["layers"]) == 3
    strict = CliRunner().invoke(app, [*asked, "--tolerance", "0"])
    assert strict.exit_code == 1
    assert "BEYOND the tolerances" in strict.stdout


@pytest.mark.parametrize("command", ["show", "parity"])
@pytest.mark.parametrize("broken", ["files/trunk.onnx", "base.json", "adapter.json", "metrics.json"])
def test_a_damaged_model_is_one_line(trained: Path, tmp_path: Path, command: str, broken: str) -> None:
    damaged = Path(shutil.copytree(trained, tmp_path / "damaged"))
    (damaged / broken).write_bytes(b"torn")
    more = ("--data", str(tmp_path)) if command == "parity" else ()
    code, said = call(command, str(damaged), *more)
    assert (code, said.count("\n")) == (1, 1), said
    assert str(damaged) in said


def test_parity_names_what_it_cannot_compare(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    found = call("parity", str(trained), "--data", str(tmp_path / "none"))
    assert (found[0], found[1].count("\n")) == (2, 1)
    data = folder(tmp_path / "data", good=1)
    (data / "good" / "0.png").write_bytes(b"not an image")
    code, said = call("parity", str(trained), "--data", str(data))
    assert (code, said.count("\n")) == (2, 1), said
    assert f"{data / 'good' / '0.png'} cannot be read" in said


def test_parity_without_a_good_checkpoint_is_one_line(trained: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(trained, tmp_path / "damaged"))
    (damaged / CHECKPOINT).write_bytes(b"torn")
    code, said = call("parity", str(damaged), "--data", str(folder(tmp_path / "data", good=1)))
    assert (code, said.count("\n")) == (1, 1), said
    assert CHECKPOINT in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_is_trained_reported_and_can_be_published(tmp_path: Path) -> None:
    """A minute: the real tower and trunk on a toy product, and every other command on what they leave."""
    data, out = folder(tmp_path / "data", good=48, scratch=48), tmp_path / "out"
    options = ["--line", "plates", "--data", str(data), "--out", str(out), "--must-catch", "scratch", "--json"]
    done = CliRunner().invoke(app, ["train", *options])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["line"], told["out"]) == ("plates", str(out))
    assert told["metrics"]["accuracy"] >= 0.9
    assert "| scratch | defect |" in (out / "report.md").read_text(encoding="utf-8")
    bundle = read_starting(out)
    assert [(c.name, c.defect, c.must_catch) for c in bundle.adapter.head.classes] == [
        ("good", False, False),
        ("scratch", True, True),
    ]
    judges, replayed = (_digests(out / name) for name in ("gate", "memory"))
    assert len(judges | replayed) == 96
    assert not judges & replayed, "an image that judges is never trained on"
    assert json.loads(CliRunner().invoke(app, ["show", str(out), "--json"]).stdout)["base"]["preset"] == "nano"
    assert call("parity", str(out), "--data", str(data), "--frames", "8")[0] == 0
    assert train(data, out)[0] == 4


def _digests(root: Path) -> set[str]:
    with (root / "labels.csv").open(encoding="utf-8", newline="") as file:
        return {sha256_hex((root / row["file"]).read_bytes()) for row in csv.DictReader(file)}


def test_an_image_is_explained_in_words_and_in_a_picture(trained: Path, tmp_path: Path) -> None:
    image = next((folder(tmp_path / "data", scratch=1) / "scratch").iterdir())
    asked = ["explain", str(image), "--model", str(trained), "--out", str(tmp_path / "why.png")]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["class"] in {"good", "scratch"}
    assert found["class"] in found["sentence"]
    assert np.array(found["evidence"]).ndim == 2
    shown = cv2.imread(str(tmp_path / "why.png"))
    assert shown.shape[:2] == cv2.imread(str(image)).shape[:2]
    said = CliRunner().invoke(app, [*asked[:4], "--language", "zh"]).stdout
    assert "置信度" in said or "无法判定" in said


def test_what_cannot_be_explained_is_one_line(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    for arguments, says in (
        ((str(tmp_path / "bad.png"), "--model", str(trained)), "bad.png cannot be read"),
        ((str(tmp_path / "none.png"), "--model", str(trained)), "none.png"),
        ((str(tmp_path / "bad.png"), "--model", str(tmp_path)), "edgeloop models train"),
        ((str(tmp_path / "bad.png"), "--model", str(trained), "--out", "why.jpg"), "ends in .png"),
    ):
        code, said = call("explain", *arguments)
        assert (code, said.count("\n")) == (2, 1), said
        assert says in said


def test_doctor_says_what_the_processor_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.runtime import cpu

    for level, code in (("exact", 0), ("saturates", 1), ("unknown", 0)):
        found = cpu.Processor(name="a CPU", machine="x86_64", cores=2, kernels=("some kernel",), int8=level)  # type: ignore[arg-type]
        monkeypatch.setattr(cpu, "read_processor", lambda found=found: found)
        done = CliRunner().invoke(app, ["doctor", "--json"])
        assert done.exit_code == code
        assert json.loads(done.stdout)["advice"] == found.advice
