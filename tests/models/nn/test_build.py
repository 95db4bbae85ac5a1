"""Bases that were built, not trained: random ones, data files, image tokens, and the command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from models.cli import app
from models.contracts.base import sha256_hex
from models.nn import config as sizes
from models.nn.build import RANDOM, build
from models.nn.checkpoint import load_checkpoint
from models.nn.config import tiny, with_image_tokens
from models.nn.external import cuts
from models.runtime.bundle import BadBundle, open_base, read_base
from models.runtime.preprocess import preprocess
from tests.models.nn.checkpoint_folder import PROMPT, write_transformers
from tests.models.nn.toy import NOW, picture

RUNNER = CliRunner()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A preset that the command can build in a second."""
    monkeypatch.setitem(sizes.PRESETS, "1.7b-tiny", tiny("1.7b"))
    return "1.7b-tiny"


def run(*arguments: str | Path) -> tuple[int, str, str]:
    done = RUNNER.invoke(app, ["build", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_random_weights_say_so_wherever_they_appear(small: str, tmp_path: Path) -> None:
    code, out, err = run("--preset", small, "--out", tmp_path / "base", "--seed", "3", "--json")
    assert code == 0, err
    assert "for measurements only" in err
    found = json.loads(out)
    base, _ = read_base(tmp_path / "base")
    assert found["pretrained"] == found["licence"] + ", seed 3" == base.pretrained == f"{RANDOM}, seed 3"
    assert found["base"] == base.digest()
    assert found["frame_error"] < 0.05
    again = CliRunner().invoke(app, ["show", str(tmp_path / "base"), "--json"])
    assert json.loads(again.stdout)["base"]["pretrained"] == f"{RANDOM}, seed 3"


def test_a_checkpoint_becomes_a_base_that_computes_the_same(small: str, tmp_path: Path) -> None:
    write_transformers(tmp_path / "published")
    (tmp_path / "prompt.txt").write_text(PROMPT)
    code, out, err = run(
        "--preset", small, "--checkpoint", tmp_path / "published", "--prompt", tmp_path / "prompt.txt",
        "--out", tmp_path / "base", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["prompt_tokens"] == 9
    base, files = read_base(tmp_path / "base")
    assert base.licence == "deepseek"
    assert base.preprocessing.mean == (127.5, 127.5, 127.5)
    model = load_checkpoint(tmp_path / "base" / "checkpoint.safetensors")
    pixels = preprocess(picture(1, defect=True), base.preprocessing)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)).numpy()
    opened = open_base(base, files)
    found = opened.embed(opened.tokens(pixels), {}).embedding
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.05
    assert (tmp_path / "base" / "tokenizer.json").read_bytes() == (tmp_path / "published/tokenizer.json").read_bytes()


def test_a_faulty_checkpoint_writes_nothing(small: str, tmp_path: Path) -> None:
    write_transformers(tmp_path / "published")
    weights = tmp_path / "published" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    (tmp_path / "prompt.txt").write_text(PROMPT)
    before = sorted(tmp_path.iterdir())
    code, _, err = run(
        "--preset", small, "--checkpoint", tmp_path / "published", "--prompt", tmp_path / "prompt.txt",
        "--out", tmp_path / "base",
    )  # fmt: skip
    assert code == 1
    assert "model.safetensors is truncated" in err
    assert "nothing was written" in err
    assert sorted(tmp_path.iterdir()) == before


def publish(tmp_path: Path) -> tuple[str | Path, ...]:
    write_transformers(tmp_path / "published")
    (tmp_path / "prompt.txt").write_text(PROMPT)
    return ("--checkpoint", tmp_path / "published", "--prompt", tmp_path / "prompt.txt", "--out", tmp_path / "base")


@pytest.mark.parametrize(
    ("key", "value"),
    [("image_std", [0.5, 0, 0.5]), ("image_std", [0.5, 0.5, float("nan")]), ("image_mean", [float("inf"), 0.5, 0.5])],
)
def test_a_normalisation_that_makes_no_numbers_is_named(
    small: str, tmp_path: Path, key: str, value: list[float]
) -> None:
    arguments = publish(tmp_path)
    stated = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} | {key: value}
    (tmp_path / "published" / "preprocessor_config.json").write_text(json.dumps(stated))
    code, _, err = run("--preset", small, *arguments)
    assert code == 1
    assert f"preprocessor_config.json: {key} is" in err
    assert not (tmp_path / "base").exists()


def test_a_base_whose_values_are_not_finite_is_not_written(small: str, tmp_path: Path) -> None:
    """Every weight is a number, and their products are none."""
    arguments = publish(tmp_path)
    weights = tmp_path / "published" / "model.safetensors"
    state = load_file(weights)
    for name in state:
        if "aligner" in name:
            state[name] = torch.full_like(state[name], 3e38)
    save_file(state, weights)
    code, _, err = run("--preset", small, *arguments)
    assert code == 1
    assert "trunk_error is nan" in err
    assert not list(tmp_path.glob("*base*"))


def test_what_was_built_can_be_read_by_everybody(small: str, tmp_path: Path) -> None:
    assert run("--preset", small, "--out", tmp_path / "base")[0] == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "base").rglob("*") if path.is_file()}
    assert modes["checkpoint.safetensors"] == 0o644
    assert set(modes.values()) == {0o644}


@pytest.mark.parametrize(("preset", "says"), [("", "nowhere is no directory"), ("nano", "nano takes no published")])
def test_a_checkpoint_that_cannot_be_one_is_said(small: str, tmp_path: Path, preset: str, says: str) -> None:
    code, _, err = run("--preset", preset or small, "--checkpoint", tmp_path / "nowhere", "--out", tmp_path / "base")
    assert (code, says in err) == (1, True), err


def test_a_prompt_that_is_not_utf8_names_its_file(small: str, tmp_path: Path) -> None:
    arguments = publish(tmp_path)
    (tmp_path / "prompt.txt").write_bytes(b"gut \xfc <image> ?")
    code, _, err = run("--preset", small, *arguments)
    assert code == 2
    assert f"--prompt {tmp_path / 'prompt.txt'} is not UTF-8: invalid start byte at byte 4" in err


def test_a_place_where_nothing_can_be_made_is_refused_before_the_build(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    code, _, err = run("--preset", small, "--out", tmp_path / "file" / "a" / "base")
    assert (code, err.splitlines()[0].endswith("file is no folder: choose another --out")) == (2, True)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # the superuser may write anywhere
    code, _, err = run("--preset", small, "--out", tmp_path / "a" / "base")
    assert (code, err.splitlines()[0].endswith("cannot be written to: choose another --out")) == (2, True)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--preset", "2b"), "no preset '2b'"),
        (("--image-tokens", "7"), "gives 16, 4, 1 image tokens, not 7"),
        (("--prompt", "p.txt"), "needs --checkpoint"),
    ],
)
def test_wishes_that_cannot_be_met_are_usage_errors(
    small: str, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = run("--preset", small, "--out", tmp_path / "base", *arguments)
    assert code == 2
    assert says in err
    assert not (tmp_path / "base").exists()


def test_an_existing_folder_is_left_alone(small: str, tmp_path: Path) -> None:
    code, _, err = run("--preset", small, "--out", tmp_path)
    assert code == 2
    assert "exists already" in err


@pytest.mark.parametrize("tokens", [16, 4, 1])
def test_fewer_image_tokens_are_averages_over_squares(tokens: int) -> None:
    config = with_image_tokens(tiny("1.7b"), tokens)
    made = build(config, source=None, family="toy", version=1, seed=0, now=NOW)
    assert made.base.manifest.grid == (config.tower.grid, config.tower.grid)
    pixels = preprocess(picture(1, defect=True), made.base.manifest.preprocessing)
    with torch.no_grad():
        every = made.model.tower.model(torch.from_numpy(pixels)).last_hidden_state[0]
        found = made.model.tokens(torch.from_numpy(pixels))[0]
    side, pool = config.tower.grid, config.tower.pool
    first = every.reshape(side, pool, side, pool, -1)[0, :, 0].reshape(pool * pool, -1).mean(0)
    torch.testing.assert_close(found[0], first)
    exported = made.base.open().tokens(pixels)[0]
    assert exported.shape == (tokens, config.tower.width)
    assert np.linalg.norm(exported - found.numpy()) / np.linalg.norm(found.numpy()) < 0.05


def test_a_large_graph_keeps_its_weights_beside_it(tmp_path: Path) -> None:
    inside = build(tiny("1.7b"), source=None, family="toy", version=1, seed=0, now=NOW).base
    beside = build(tiny("1.7b"), source=None, family="toy", version=1, seed=0, now=NOW, inline_bytes=0).base
    assert set(beside.files) - set(inside.files) == {"tower.data", "trunk.data"}
    assert len(beside.files["trunk.onnx"]) < len(inside.files["trunk.onnx"])
    pixels = preprocess(picture(1, defect=True), inside.manifest.preprocessing)
    one, other = inside.open(), beside.open()
    tokens = one.tokens(pixels)
    np.testing.assert_array_equal(other.tokens(pixels), tokens)
    np.testing.assert_array_equal(other.embed(tokens, {}).embedding, one.embed(tokens, {}).embedding)
    for file in beside.manifest.files:
        data, at = beside.files[file.name], 0
        for chunk in file.chunks:
            assert sha256_hex(data[at : at + chunk.length]) == chunk.sha256
            at += chunk.length
        assert at == len(data)


def test_chunks_end_where_tensors_end() -> None:
    assert cuts((0, 4, 9, 10, 20, 21), least=8) == [0, 9, 20, 21]
    assert cuts((0, 4), least=8) == [0, 4]


def test_a_damaged_base_is_not_opened(small: str, tmp_path: Path) -> None:
    assert run("--preset", small, "--out", tmp_path / "base")[0] == 0
    path = tmp_path / "base" / "files" / "trunk.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BadBundle, match=r"trunk\.onnx is damaged"):
        read_base(tmp_path / "base")
