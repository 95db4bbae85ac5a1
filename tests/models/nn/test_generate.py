"""Sentences of a base's own language model: transformers' tokens, the limits, and every base that cannot speak."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from typer.testing import CliRunner

from models.cli import app
from models.contracts.model_manifest import BaseManifest
from models.nn import config as sizes
from models.nn.build import Source, build
from models.nn.config import tiny
from models.nn.generate import MAX_NAMED, CannotGenerate, Limits, Speaker, open_speaker, prompt_text
from models.nn.prompt import BadPrompt, Prompt, read_tokenizer
from models.runtime.bundle import read_base
from models.runtime.explain import Place
from models.runtime.grounding import Dropped, Facts
from tests.models.nn.checkpoint_folder import IMAGE_TOKEN, PROMPT, config, write_transformers
from tests.models.nn.speaking import SENTENCE, write_speaking
from tests.models.nn.toy import NOW, picture

RUNNER = CliRunner()
FACTS = Facts("reject", "scratch", {"good": False, "scratch": True})
PICTURE = picture(1, defect=True)


def made(folder: Path, text: str = PROMPT) -> Speaker:
    found = build(config(), source=Source(folder, text), family="toy", version=1, seed=0, now=NOW)
    table = found.model.trunk.model.embed_tokens.weight.detach()
    head = table if found.head is None else found.head
    return Speaker(found.model, found.base.manifest, head=head, tokenizer=read_tokenizer(folder))


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Speaker:
    folder = tmp_path_factory.mktemp("speaking")
    write_speaking(folder)
    return made(folder, ": <image> :")


@pytest.mark.parametrize("tied", [True, False])
def test_tokens_are_those_of_transformers(tmp_path: Path, tied: bool) -> None:
    """Its own greedy search on the same weights, picture and prompt, with and without a token that ends it."""
    theirs = write_transformers(tmp_path / "p", tied=tied)
    speaker = made(tmp_path / "p")
    torch.manual_seed(1)
    pixels = torch.randn(1, 3, 32, 32)
    prompt = Prompt((0, 2, 3, 4, 5, 6, 10), (7, 11))
    ids = torch.tensor([[*prompt.prefix, *[IMAGE_TOKEN] * config().tower.tokens, *prompt.suffix]])

    def greedy(stop: int | None) -> list[int]:
        made = theirs.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, do_sample=False,
            max_new_tokens=12, eos_token_id=stop, pad_token_id=0,
        )  # fmt: skip
        return [int(token) for token in made[0, ids.shape[1] :]]

    free = greedy(None)
    assert len(free) == 12
    assert len(set(free)) > 1, "a chain of one token would prove nothing"
    assert list(speaker.generate(pixels, prompt, limits=Limits(tokens=12)).ids) == free
    stop = next(token for token in free if token != free[0])
    speaker._ends = {stop}
    found = speaker.generate(pixels, prompt, limits=Limits(tokens=12))
    assert found.finished
    assert [*found.ids, stop] == greedy(stop)


def test_a_base_with_a_language_words_what_was_decided(speaking: Speaker) -> None:
    judged, raw = speaking.describe(PICTURE, FACTS, language="en")
    assert (judged.text, raw.text, raw.finished) == (SENTENCE, SENTENCE, True)
    again, _ = speaking.describe(PICTURE, FACTS, language="en")
    assert again == judged


def test_words_against_the_decision_are_dropped(speaking: Speaker) -> None:
    passed = Facts("pass", "good", FACTS.defects)
    assert speaking.describe(PICTURE, passed, language="en")[0].dropped is Dropped.OTHER_CLASS
    assert speaking.describe(PICTURE, FACTS, language="zh")[0].dropped is Dropped.OTHER_LANGUAGE


def test_length_ends_a_sentence(speaking: Speaker) -> None:
    judged, raw = speaking.describe(PICTURE, FACTS, language="en", limits=Limits(tokens=3))
    assert raw.text == "a scratch is"
    assert judged.dropped is Dropped.UNFINISHED
    whole, _ = speaking.describe(PICTURE, FACTS, language="en", limits=Limits(tokens=7))
    assert whole.text == SENTENCE


def test_time_ends_a_sentence(speaking: Speaker) -> None:
    moments = iter(range(100))
    prompt = Prompt((0,), (2,))
    pixels = torch.zeros(1, 3, 32, 32)
    found = speaking.generate(pixels, prompt, limits=Limits(seconds=4), clock=lambda: float(next(moments)))
    assert (len(found.ids), found.finished) == (4, False)


def test_whoever_asks_may_stop_it_between_tokens(speaking: Speaker) -> None:
    asked = []

    def go_on() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        speaking.describe(PICTURE, FACTS, language="en", go_on=go_on)
    assert len(asked) == 3


def test_a_model_that_says_nothing_has_no_sentence(tmp_path: Path) -> None:
    write_speaking(tmp_path / "p", "")
    judged, raw = made(tmp_path / "p", ": <image> :").describe(PICTURE, FACTS, language="en")
    assert (judged.dropped, raw.ids) == (Dropped.EMPTY, ())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_prompt_holds_what_was_decided(language: str) -> None:
    defects = {"good": False, "edge_chip": True, "<image>": True} | {f"class {i}": True for i in range(100)}
    text = prompt_text(Facts("unsure", "edge_chip", defects, Place(0.1, 0.1, 0.2)), language)  # type: ignore[arg-type]
    assert text.count("<image>") == 1
    assert "edge chip" in text
    assert ("at the upper left" if language == "en" else "左上部") in text
    assert text.count("class ") == MAX_NAMED - 3
    assert text.endswith("Assistant:")


def test_a_head_of_another_model_is_refused(speaking: Speaker, tmp_path: Path) -> None:
    write_speaking(tmp_path / "p")
    with pytest.raises(CannotGenerate, match=r"language head is \(4, 32\)"):
        Speaker(speaking._model, speaking._base, head=torch.zeros(4, 32), tokenizer=read_tokenizer(tmp_path / "p"))


# --- folders and the command ---


def run(*arguments: str | Path, code: int = 0) -> str:
    done = RUNNER.invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a line's model on a base that speaks, and one on random weights."""
    root = tmp_path_factory.mktemp("folders")
    for label, defect in (("good", False), ("scratch", True)):
        (root / "images" / label).mkdir(parents=True)
        for seed in range(24):
            image = picture(2 * seed + defect, defect=defect)
            (root / "images" / label / f"{seed}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    write_speaking(root / "published")
    (root / "prompt.txt").write_text(": <image> :")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sizes.PRESETS, "1.7b-tiny", tiny("1.7b"))
        run("build", "--preset", "1.7b-tiny", "--checkpoint", root / "published", "--prompt", root / "prompt.txt",
            "--out", root / "base")  # fmt: skip
        run("build", "--preset", "1.7b-tiny", "--out", root / "random")
    for base, model in (("base", "model"), ("random", "mute")):
        run("train", "--line", "cells", "--data", root / "images", "--base", root / base, "--out", root / model,
            "--no-flips")  # fmt: skip
    return root


def called_scratch(folders: Path) -> Path:
    """An image that the model calls a scratch."""
    for image in sorted((folders / "images" / "scratch").iterdir()):
        if "scratch" in run("explain", image, "--model", folders / "model"):
            return image
    pytest.fail("the model finds no scratch at all")


def test_the_command_prints_both_and_says_whose_words(folders: Path) -> None:
    image = called_scratch(folders)
    alone = run("explain", image, "--model", folders / "model")
    both = run("explain", image, "--model", folders / "model", "--generate")
    assert both.startswith(alone)
    assert both.removeprefix(alone) == f"The model's own words, not a measurement: {SENTENCE}\n"
    found = json.loads(run("explain", image, "--model", folders / "model", "--generate", "--json"))
    assert found["generated"]["text"] == SENTENCE
    assert found["generated"]["dropped"] is None
    assert found["generated"]["tokens"] == len(SENTENCE.split())
    assert found["sentence"] == alone.strip()


def test_the_command_says_why_there_is_no_sentence(folders: Path) -> None:
    image = called_scratch(folders)
    said = run("explain", image, "--model", folders / "model", "--generate", "--language", "zh")
    assert said.splitlines()[1] == "未采用模型生成的句子：模型使用了另一种语言。"
    found = json.loads(
        run("explain", image, "--model", folders / "model", "--generate", "--language", "zh", "--json"),
    )
    assert found["generated"]["text"] is None
    assert found["generated"]["dropped"] == "other_language"


def test_a_frame_without_a_decision_gets_no_words(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "dark.png").write_bytes(cv2.imencode(".png", np.zeros((48, 48), np.uint8))[1].tobytes())
    said = run("explain", tmp_path / "dark.png", "--model", folders / "model", "--generate")
    assert "cannot be judged" in said
    assert "nothing to describe" in said


def test_random_weights_have_no_words(folders: Path) -> None:
    image = called_scratch(folders)
    said = run("explain", image, "--model", folders / "mute", "--generate", code=1)
    assert "random weights and no language" in said
    assert "--checkpoint" in said


Break = Callable[[Path], None]


@pytest.mark.parametrize(
    ("damage", "fault", "says"),
    [
        (lambda base: (base / "tokenizer.json").unlink(), CannotGenerate, "has no tokenizer.json"),
        (lambda base: (base / "tokenizer.json").write_text("{}"), BadPrompt, "is no tokenizer"),
        (lambda base: (base / "checkpoint.safetensors").unlink(), CannotGenerate, "has no checkpoint.safetensors"),
    ],
)
def test_a_folder_without_a_language_says_what_it_lacks(
    folders: Path, tmp_path: Path, damage: Break, fault: type[Exception], says: str
) -> None:
    import shutil

    shutil.copytree(folders / "base", tmp_path / "base")
    manifest: BaseManifest = read_base(tmp_path / "base")[0]
    assert isinstance(open_speaker(tmp_path / "base", manifest), Speaker)
    damage(tmp_path / "base")
    with pytest.raises(fault, match=says):
        open_speaker(tmp_path / "base", manifest)


def test_the_tokenizer_travels_with_a_model_fitted_on_the_base(folders: Path) -> None:
    for name in ("tokenizer.json", "language_head.safetensors"):
        assert (folders / "model" / name).read_bytes() == (folders / "base" / name).read_bytes()
    assert not (folders / "mute" / "tokenizer.json").exists()
    assert isinstance(read_tokenizer(folders / "model"), Tokenizer)
