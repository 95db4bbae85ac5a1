from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from models.nn.prompt import MAX_PROMPT_TOKENS, BadPrompt, check_known, class_rows, read_tokenizer, tokenize_prompt
from tests.models.nn.checkpoint_folder import PROMPT, write_transformers


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("published")
    write_transformers(folder)
    return read_tokenizer(folder)


def test_a_prompt_is_cut_at_the_image_and_begins_the_sentence(tokenizer: Tokenizer) -> None:
    found = tokenize_prompt(tokenizer, PROMPT, vocabulary=16)
    assert found.prefix == (0, 2, 3, 4, 5, 6, 10)
    assert found.suffix == (7, 11)


@pytest.mark.parametrize(
    ("text", "vocabulary", "says"),
    [
        ("is it good ?", 16, "exactly once, it holds it 0 times"),
        ("<image> or <image> ?", 16, "it holds it 2 times"),
        ("is it good ? <image>", 16, "must go on after"),
        ("is <image> " + "good " * MAX_PROMPT_TOKENS, 16, f"{MAX_PROMPT_TOKENS} allowed"),
        ("is it <image> answer :", 8, "token 11, the embedding table has 8 rows"),
    ],
)
def test_a_prompt_that_cannot_be_folded_says_why(tokenizer: Tokenizer, text: str, vocabulary: int, says: str) -> None:
    with pytest.raises(BadPrompt, match=says):
        tokenize_prompt(tokenizer, text, vocabulary=vocabulary)


def test_a_prompt_of_mostly_unknown_words_names_the_first(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadPrompt, match=r"4 of the prompt's 6 tokens are unknown.*the first is 'ist'"):
        check_known(tokenizer, "ist es gut ? <image> antwort :")
    check_known(tokenizer, "is it gut ? <image> antwort :")


def test_class_rows_are_the_mean_of_their_words_rows(tokenizer: Tokenizer) -> None:
    head = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    rows = class_rows(tokenizer, head, ["good", "bad_part"])
    expected = head[[6, 13]].mean(0)
    np.testing.assert_allclose(rows[1], (expected / expected.norm()).numpy(), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("names", "says"), [(["good", ""], "has no token"), (["bad part", "bad_part"], "the same tokens")]
)
def test_class_names_without_words_of_their_own_are_refused(tokenizer: Tokenizer, names: list[str], says: str) -> None:
    with pytest.raises(BadPrompt, match=says):
        class_rows(tokenizer, torch.zeros(16, 4), names)


def test_a_head_that_is_shorter_than_the_tokenizer_is_said(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadPrompt, match="token 8, the language head has 4 rows"):
        class_rows(tokenizer, torch.zeros(4, 4), ["scratch"])


def test_a_missing_or_broken_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match=r"tokenizer\.json is missing"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadPrompt, match="is no tokenizer"):
        read_tokenizer(tmp_path)
