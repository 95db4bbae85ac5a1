"""A small DeepSeek-VL directory, written by transformers itself, and the same weights under the original names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import DeepseekVLConfig, DeepseekVLForConditionalGeneration

from models.nn.config import EdgeConfig, tiny

WORDS = ["<s>", "[UNK]", "is", "it", "good", "or", "bad", "answer", "scratch", "dent", "?", ":", "the", "part"]
IMAGE_TOKEN = 15
PROMPT = "is it good or bad ? <image> answer :"
CARD = "---\nlicense: other\nlicense_name: deepseek\n---\n# A small checkpoint\n"


def config() -> EdgeConfig:
    return tiny("1.7b")


def language_model(*, tied: bool = True) -> DeepseekVLForConditionalGeneration:
    """Transformers' own model in the small preset's geometry, seeded, in the precision of the published one."""
    torch.manual_seed(7)
    own = config()
    made = DeepseekVLConfig(
        text_config={
            "model_type": "llama", "hidden_size": own.trunk.width, "intermediate_size": own.trunk.ffn,
            "num_hidden_layers": own.trunk.depth, "num_attention_heads": own.trunk.heads,
            "num_key_value_heads": own.trunk.heads, "vocab_size": own.trunk.vocabulary,
            "rms_norm_eps": own.trunk.norm_eps, "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": own.trunk.rope_theta},
        },
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": own.tower.width, "intermediate_size": own.tower.ffn,
            "num_hidden_layers": own.tower.depth, "num_attention_heads": own.tower.heads,
            "image_size": own.tower.image, "patch_size": own.tower.patch, "hidden_act": "gelu",
            "vision_use_head": False,
        },
        image_token_id=IMAGE_TOKEN, tie_word_embeddings=tied,
    )  # fmt: skip
    model = DeepseekVLForConditionalGeneration(made).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
            elif "bias" in name:
                parameter.normal_(0, 0.05)
            parameter.copy_(parameter.to(torch.bfloat16))
    return model


def write_transformers(folder: Path, *, tied: bool = True, shards: bool = False) -> DeepseekVLForConditionalGeneration:
    """A directory as transformers saves it."""
    model = language_model(tied=tied)
    model.save_pretrained(folder, max_shard_size="20KB" if shards else "1GB")
    _beside(folder)
    return model


def _beside(folder: Path) -> None:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text(CARD)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))


_ORIGINAL = (
    (r"model\.language_model\.(.*)", r"language_model.model.\1"),
    (r"lm_head\.(.*)", r"language_model.lm_head.\1"),
    (r"model\.aligner\.linear1\.(.*)", r"aligner.layers.0.\1"),
    (r"model\.aligner\.linear2\.(.*)", r"aligner.layers.2.\1"),
    (r"embeddings\.patch_embedding\.(.*)", r"patch_embed.proj.\1"),
    (r"embeddings\.position_embedding\.weight", r"pos_embed"),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.(\d+)\.layer_norm(\d)\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.(\d+)\.mlp\.(.*)", r"blocks.\1.mlp.\2"),
    (r"post_layernorm\.(.*)", r"norm.\1"),
)


def write_original(folder: Path, *, tied: bool = True) -> DeepseekVLForConditionalGeneration:
    """The same weights as the original repository names them: one qkv a block, a pooling head nobody uses."""
    model = write_transformers(folder, tied=tied)
    state, renamed = load_file(folder / "model.safetensors"), {}
    for name, tensor in state.items():
        inner = re.sub(r"^model\.vision_model\.(vision_model\.)?", "", name)
        if inner != name and re.search(r"self_attn\.[qkv]_proj", inner):
            continue
        for pattern, replacement in _ORIGINAL:
            if re.fullmatch(pattern, inner):
                prefix = "" if inner == name else "vision_model.vision_tower."
                renamed[prefix + re.sub(pattern, replacement, inner)] = tensor
                break
        else:
            raise AssertionError(name)
    tower = next(name for name in state if name.endswith("self_attn.q_proj.weight") and "vision_model" in name)
    root = tower.split("encoder.layers")[0]
    for i in range(config().tower.depth):
        for kind in ("weight", "bias"):
            parts = [state[f"{root}encoder.layers.{i}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            renamed[f"vision_model.vision_tower.blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
    positions = "vision_model.vision_tower.pos_embed"
    renamed[positions] = renamed[positions][None]
    renamed["vision_model.vision_tower.attn_pool.latent"] = torch.zeros(1, 1, config().tower.width)
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, folder / "model.safetensors")
    found = json.loads((folder / "config.json").read_text())
    language = {key: value for key, value in found["text_config"].items() if key != "tie_word_embeddings"}
    language |= {"tie_word_embeddings": True} if tied else {}
    vision = {"cls": "CLIPVisionTower", "params": {"image_size": config().tower.image}}
    (folder / "config.json").write_text(
        json.dumps({"model_type": "multi_modality", "language_config": language, "vision_config": vision})
    )
    return model
