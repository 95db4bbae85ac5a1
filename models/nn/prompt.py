"""The fixed prompt and the class words, in a published checkpoint's own tokens.

The prompt never changes on a box, so its embeddings are folded into the graph: no tokenizer and no vocabulary travel.
A class that nobody has labelled yet gets its first row from the language head: the mean of its name's token rows
(verbalizer, Schick and Schuetze, EACL 2021). Such a row only starts a class; labels move it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from models.runtime.bundle import TOKENIZER

MARK = "<image>"
BEGIN = ("<｜begin▁of▁sentence｜>", "<s>", "<bos>")
DEFAULT_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.\n\n"
    "User: Is the part in this picture good, or which defect does it show?\n<image>\n\nAssistant:"
)
"""DeepSeek-VL's system text, and the question before the image so that what comes before it can be cached."""
MAX_PROMPT_TOKENS = 512


class BadPrompt(ValueError):
    """The prompt or a class name cannot be written in this checkpoint's tokens."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids before and after the image."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]


def read_tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's tokenizer.

    Raises:
        BadPrompt: there is none, or it cannot be read.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        raise BadPrompt(f"{path} is missing: the prompt cannot be folded without it; copy it beside the weights")
    return open_tokenizer(path)


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file of any name.

    Raises:
        BadPrompt: it is none.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as fault:  # tokenizers raises bare Exception
        raise BadPrompt(f"{path} is no tokenizer: {fault}") from fault


def tokenize_prompt(tokenizer: Tokenizer, text: str, *, vocabulary: int) -> Prompt:
    """Split at the image mark; the sentence begins with the checkpoint's own mark, if it has one.

    Raises:
        BadPrompt: not exactly one image mark, nothing after it, too long, or a token beyond the embedding table.
    """
    if text.count(MARK) != 1:
        raise BadPrompt(f"the prompt must hold {MARK} exactly once, it holds it {text.count(MARK)} times")
    before, after = text.split(MARK)
    start = next((found for mark in BEGIN if (found := tokenizer.token_to_id(mark)) is not None), None)
    prefix = [*([start] if start is not None else []), *_ids(tokenizer, before)]
    suffix = _ids(tokenizer, after)
    if not suffix:
        raise BadPrompt(f"the prompt must go on after {MARK}: the embedding is read at its last token")
    if len(prefix) + len(suffix) > MAX_PROMPT_TOKENS:
        raise BadPrompt(f"the prompt has {len(prefix) + len(suffix)} tokens, {MAX_PROMPT_TOKENS} allowed")
    if beyond := [one for one in (*prefix, *suffix) if one >= vocabulary]:
        raise BadPrompt(f"the tokenizer gives token {beyond[0]}, the embedding table has {vocabulary} rows")
    return Prompt(tuple(prefix), tuple(suffix))


def check_known(tokenizer: Tokenizer, prompt: str) -> None:
    """Whether the tokenizer can write a prompt that a person chose.

    Raises:
        BadPrompt: more unknown than known tokens: its language or script is none of the checkpoint's.
    """
    unknown = _unknown_id(tokenizer)
    if unknown is None:
        return
    read = [(text, tokenizer.encode(text, add_special_tokens=False)) for text in prompt.split(MARK)]
    lost = [text[a:b] for text, found in read for one, (a, b) in zip(found.ids, found.offsets, strict=True)
            if one == unknown]  # fmt: skip
    count = sum(len(found.ids) for _, found in read)
    if 2 * len(lost) > count:
        raise BadPrompt(
            f"{len(lost)} of the prompt's {count} tokens are unknown to this checkpoint's tokenizer, the first is "
            f"{lost[0]!r}: write the prompt in words it knows"
        )


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """The token that stands for what the tokenizer cannot write; byte-level ones, as DeepSeek's, have none."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    return None if model.get("unk_token") is None else tokenizer.token_to_id(model["unk_token"])


def class_rows(tokenizer: Tokenizer, head: Tensor, names: Sequence[str]) -> NDArray[np.float32]:
    """First rows of a class head [C, D], of length 1: the mean of each name's rows in the language head [V, D].

    Raises:
        BadPrompt: a name has no token, or two names have the same ones.
    """
    words = [tuple(_ids(tokenizer, " " + name.replace("_", " ").replace("-", " "))) for name in names]
    for name, ids in zip(names, words, strict=True):
        if not ids:
            raise BadPrompt(f"the class name {name!r} has no token in this checkpoint: choose a word")
        if max(ids) >= len(head):
            raise BadPrompt(f"the class name {name!r} has token {max(ids)}, the language head has {len(head)} rows")
    if len(set(words)) < len(words):
        raise BadPrompt(f"two of the classes {', '.join(names)} have the same tokens: choose other names")
    rows = torch.stack([head[list(ids)].float().mean(0) for ids in words])
    return torch.nn.functional.normalize(rows, dim=1).numpy()


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids) if text else []
