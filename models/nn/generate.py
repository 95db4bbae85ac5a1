"""A sentence about a part in the words of the base's own language model: greedy decoding with the decision given.

It is the published checkpoint that speaks, without the line's adapter, which was trained to tell classes apart and not
to talk. Verdict, class and place come from the inspection and are written into the prompt; the model only words what
it sees beside them. The same picture and decision give the same sentence: no sampling.

Only a base with a tokenizer and published weights can do this. What the sentence may say is decided in
`models.runtime.grounding`. Not on the hot path: prompt and picture are read once, then one token at a time with the
keys and values of the earlier ones kept, and `generate` asks between tokens whether to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DynamicCache

from models.contracts.model_manifest import BaseManifest
from models.nn.checkpoint import language_head, load_checkpoint
from models.nn.model import DeepSeekEdge
from models.nn.prompt import MARK, TOKENIZER, Prompt, read_tokenizer, tokenize_prompt
from models.runtime.bundle import CHECKPOINT
from models.runtime.explain import Language
from models.runtime.grounding import Facts, Judged, judge
from models.runtime.image import Pixels
from models.runtime.preprocess import Roi, preprocess

ENDS = ("<｜end▁of▁sentence｜>", "</s>", "<eos>", "<|endoftext|>", "<|EOT|>")
MAX_NAMED = 16
"""Classes of a line that the prompt lists, the called one among them."""
_VERDICTS = {
    "en": {"pass": "passed", "reject": "rejected", "unsure": "unsure, a person will look"},
    "zh": {"pass": "合格", "reject": "剔除", "unsure": "不确定，由人工复判"},
}
_PROMPTS = {
    "en": (
        "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
        "provides, and assist the user with a variety of tasks using natural language.\n\n"
        f"User: {MARK}An inspection station judged the part in this picture. Verdict: {{verdict}}. Class: {{name}}, "
        "{kind}.{place} Classes of this line: {classes}. Describe in one short English sentence what can be seen of "
        "{name} in the picture. Keep to this verdict and this class.\n\nAssistant:"
    ),
    "zh": (
        "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
        "provides, and assist the user with a variety of tasks using natural language.\n\n"
        f"User: {MARK}检测工位已判定图中的零件。判定：{{verdict}}。类别：{{name}}（{{kind}}）。{{place}}"
        "本产线的类别：{classes}。请用一句简短的中文描述图中与{name}有关的可见情况，不要改变判定和类别。\n\nAssistant:"
    ),
}
_KINDS = {"en": {True: "a defect", False: "good"}, "zh": {True: "缺陷", False: "良品"}}
_PLACES = {"en": " The reasons lie {place}.", "zh": "依据位于{place}。"}


class CannotGenerate(ValueError):
    """This base has no language to speak with. The text says what it lacks and what to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`tokens` are generated at most; after `seconds` no further one is begun."""

    tokens: int = 64
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Generated:
    """What came out: token ids without the end token, the raw text, whether the model ended by itself, the seconds."""

    ids: tuple[int, ...]
    text: str
    finished: bool
    seconds: float


class Speaker:
    """A base's language model. Shares the model's weights; changes nothing in it.

    Args:
        head: rows [vocabulary, D] of the language head.

    Raises:
        CannotGenerate: the head or the tokenizer is another model's.
    """

    def __init__(self, model: DeepSeekEdge, base: BaseManifest, *, head: Tensor, tokenizer: Tokenizer) -> None:
        refuse_without_language(base)
        table = model.trunk.model.embed_tokens.weight
        if head.shape != table.shape:
            raise CannotGenerate(f"the language head is {tuple(head.shape)}, the embedding table {tuple(table.shape)}")
        self._model, self._base, self._head, self._tokenizer = model, base, head, tokenizer
        self._ends = {found for mark in ENDS if (found := tokenizer.token_to_id(mark)) is not None}

    def describe(
        self, pixels: Pixels, facts: Facts, *, language: Language, roi: Roi | None = None,
        limits: Limits | None = None, go_on: Callable[[], None] = lambda: None,
    ) -> tuple[Judged, Generated]:  # fmt: skip
        """A checked sentence about one frame, as the camera gave it.

        Args:
            go_on: called before every token; what it raises ends the generation.

        Raises:
            models.nn.prompt.BadPrompt: the names of the classes cannot be written in this checkpoint's tokens.
            models.runtime.preprocess.WrongSize: the frame is too small for the region of interest.
        """
        prompt = tokenize_prompt(self._tokenizer, prompt_text(facts, language), vocabulary=len(self._head))
        prepared = torch.from_numpy(preprocess(pixels, self._base.preprocessing, roi=roi))
        made = self.generate(prepared, prompt, limits=limits or Limits(), go_on=go_on)
        return judge(made.text, facts, language=language, finished=made.finished), made

    def generate(
        self, pixels: Tensor, prompt: Prompt, *, limits: Limits, go_on: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Generated:  # fmt: skip
        """The most probable token, again and again, until an end token or a limit.

        Args:
            pixels: [1, 3, H, W], preprocessed.
        """
        started, ids, finished = clock(), list[int](), False
        for token in self._tokens(pixels, prompt, go_on):
            if token in self._ends:
                finished = True
                break
            ids.append(token)
            if len(ids) >= limits.tokens or clock() - started >= limits.seconds:
                break
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return Generated(tuple(ids), text, finished, clock() - started)

    @torch.no_grad()
    def _tokens(self, pixels: Tensor, prompt: Prompt, go_on: Callable[[], None]) -> Iterator[int]:
        """Greedy tokens without end."""
        trunk, cache = self._model.trunk, DynamicCache()
        embed = trunk.model.embed_tokens
        go_on()
        image = trunk.aligner(self._model.tokens(pixels))
        before, after = (embed(torch.tensor([part], dtype=torch.long)) for part in (prompt.prefix, prompt.suffix))
        inputs = torch.cat([before, image, after], dim=1)
        while True:
            hidden = trunk.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True).last_hidden_state[0, -1]
            token = int((self._head @ hidden).argmax())
            yield token
            go_on()
            inputs = embed(torch.tensor([[token]]))


def refuse_without_language(base: BaseManifest) -> None:
    """
    Raises:
        CannotGenerate: the base's weights are random, so are its words.
    """
    if base.pretrained == "none" or base.pretrained.startswith("none:"):
        raise CannotGenerate(
            f"base {base.family} v{base.version} has random weights and no language: build one with "
            "edgeloop models build --checkpoint"
        )


def open_speaker(folder: Path, base: BaseManifest) -> Speaker:
    """The language model of a folder that `build` made, or `train --base` from it.

    Raises:
        CannotGenerate: random weights, no checkpoint, or no tokenizer: a base that was trained here has no language.
        models.nn.prompt.BadPrompt, models.nn.checkpoint.BadCheckpoint: a file is damaged.
    """
    refuse_without_language(base)
    for name in (TOKENIZER, CHECKPOINT):
        if not (folder / name).is_file():
            raise CannotGenerate(
                f"{folder} has no {name}, so its base {base.family} v{base.version} has no language: generate with a "
                "base that edgeloop models build --checkpoint made, or a model that train --base fitted on one"
            )
    tokenizer, model = read_tokenizer(folder), load_checkpoint(folder / CHECKPOINT)
    return Speaker(model, base, head=language_head(folder, model), tokenizer=tokenizer)


def prompt_text(facts: Facts, language: Language) -> str:
    """The question with what was decided, the image's place marked once."""
    others = [name for name in facts.defects if name != facts.name][: MAX_NAMED - 1]
    listed = (", " if language == "en" else "、").join(_plain(name) for name in (facts.name, *others))
    place = "" if facts.place is None else _PLACES[language].format(place=facts.place.words(language))
    return _PROMPTS[language].format(
        verdict=_VERDICTS[language][facts.verdict], name=_plain(facts.name), place=place, classes=listed,
        kind=_KINDS[language][facts.defects[facts.name]],
    )  # fmt: skip


def _plain(name: str) -> str:
    """A class name as words; it must not look like the image's mark."""
    return name.replace("_", " ").replace("-", " ").replace("<", " ").replace(">", " ").strip()
