"""A published directory whose language model says one sentence: each token is followed by the next of the sentence.

The layers of its trunk add nothing, its embeddings are orthogonal, and the row of a word in the language head is the
embedding of the word before it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from tests.models.nn.checkpoint_folder import config, write_transformers

SENTENCE = "a scratch is on the plate ."
END = "</s>"


def write_speaking(folder: Path, sentence: str = SENTENCE) -> None:
    """`sentence` is what follows "Assistant:": at most 12 words between spaces, none twice; "" ends at once."""
    write_transformers(folder, tied=False)
    said = [":", *sentence.split(), END]
    vocabulary = {word: i for i, word in enumerate(["<s>", "[UNK]", *said])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    state = load_file(folder / "model.safetensors")
    table = torch.eye(config().trunk.vocabulary, config().trunk.width)
    head = torch.zeros_like(table)
    for word, following in pairwise(said):
        head[vocabulary[following]] = table[vocabulary[word]]
    for name, tensor in state.items():
        if "language_model" in name and name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()
        elif name.endswith("embed_tokens.weight"):
            tensor.copy_(table)
        elif name.endswith("lm_head.weight"):
            tensor.copy_(head)
    save_file(state, folder / "model.safetensors")
