"""Published directories in both namings: the same numbers as transformers, and every fault named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekVLConfig

from models.nn.build import Source, build
from models.nn.model import DeepSeekEdge
from models.nn.published import BadPublished, Published, read_published
from tests.models.nn.checkpoint_folder import IMAGE_TOKEN, PROMPT, config, write_original, write_transformers
from tests.models.nn.toy import NOW


def read(folder: Path) -> Published:
    return read_published(folder, config(), {n: t.shape for n, t in DeepSeekEdge(config()).state_dict().items()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_transformers(tmp_path / "published")
    return tmp_path / "published"


def change(folder: Path, edit: Any, shard: str = "model.safetensors") -> None:
    state = load_file(folder / shard)
    edit(state)
    save_file(state, folder / shard)


@pytest.mark.parametrize("naming", ["transformers", "original"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_built_model_computes_what_transformers_computes(tmp_path: Path, naming: str, tied: bool) -> None:
    """The whole language model on prompt and picture, against the embedding our model reads at the last token."""
    theirs = (write_original if naming == "original" else write_transformers)(tmp_path / "p", tied=tied)
    made = build(config(), source=Source(tmp_path / "p", PROMPT), family="toy", version=1, seed=0, now=NOW)
    assert made.report["naming"] == naming
    assert made.report["licence"] == "deepseek"
    assert made.report["language_head"] == ("tied to the embedding table" if tied else "its own")
    assert made.base.manifest.pretrained == "p (published checkpoint)"
    pixels = torch.randn(2, 3, 32, 32)
    ids = [0, 2, 3, 4, 5, 6, 10, *[IMAGE_TOKEN] * config().tower.tokens, 7, 11]
    with torch.no_grad():
        expected = theirs.model(input_ids=torch.tensor([ids] * 2), pixel_values=pixels).last_hidden_state[:, -1]
        found = made.model(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert made.report["frame_error"] < 0.05


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    write_transformers(tmp_path / "one")
    write_transformers(tmp_path / "many", shards=True)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = read(tmp_path / "one"), read(tmp_path / "many")
    assert one.state.keys() == many.state.keys()
    assert all(torch.equal(one.state[name], many.state[name]) for name in one.state)


def test_the_head_is_compared_and_not_believed(tmp_path: Path) -> None:
    """A head of its own, and a configuration that does not say so: the tensors decide."""
    write_transformers(tmp_path / "p", tied=False)
    found = json.loads((tmp_path / "p/config.json").read_text())
    found.pop("tie_word_embeddings", None)
    (tmp_path / "p/config.json").write_text(json.dumps(found))
    published = read(tmp_path / "p")
    assert not published.tied
    assert not torch.equal(published.head, published.state["trunk.model.embed_tokens.weight"])


def test_a_head_that_must_be_there_is_missed(folder: Path) -> None:
    found = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(found))
    with pytest.raises(BadPublished, match=r"lm_head\.weight is missing"):
        read(folder)


def test_without_head_and_flag_the_original_naming_is_not_tied(tmp_path: Path) -> None:
    """Its language model is made from a `LlamaConfig`, whose default is a head of its own."""
    write_original(tmp_path / "p", tied=False)
    read(tmp_path / "p")
    change(tmp_path / "p", lambda state: state.pop("language_model.lm_head.weight"))
    with pytest.raises(BadPublished, match=r"the tensor language_model\.lm_head\.weight is missing"):
        read(tmp_path / "p")


def test_without_head_and_flag_transformers_naming_is_tied(folder: Path) -> None:
    """`DeepseekVLConfig` leads, whatever its text configuration states: that one has a flag that nobody reads."""
    found = json.loads((folder / "config.json").read_text())
    del found["tie_word_embeddings"]
    found["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(found))
    assert DeepseekVLConfig().tie_word_embeddings
    assert read(folder).tied


@pytest.mark.parametrize("cut", [100, -1000])
def test_a_truncated_file_is_named(folder: Path, cut: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadPublished, match=r"model\.safetensors is truncated.*download it again"):
        read(folder)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write_transformers(tmp_path / "p", shards=True)
    last = sorted((tmp_path / "p").glob("model-*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-200])
    with pytest.raises(BadPublished, match=rf"{last.name} is truncated"):
        read(tmp_path / "p")
    last.unlink()
    with pytest.raises(BadPublished, match=rf"names {last.name}, which is not there"):
        read(tmp_path / "p")


def test_an_index_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    write_transformers(tmp_path / "p", shards=True)
    index = tmp_path / "p/model.safetensors.index.json"
    found = json.loads(index.read_text())
    found["weight_map"][next(iter(found["weight_map"]))] = "../elsewhere.safetensors"
    index.write_text(json.dumps(found))
    with pytest.raises(BadPublished, match="not a file of this directory"):
        read(tmp_path / "p")


def test_an_index_of_numbers_is_refused(tmp_path: Path) -> None:
    write_transformers(tmp_path / "p", shards=True)
    index = tmp_path / "p/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": 3}}))
    with pytest.raises(BadPublished, match=r"names no file for the tensor a\.weight"):
        read(tmp_path / "p")


@pytest.mark.parametrize(
    ("section", "value"), [("text_config", 5), ("vision_config", [1]), ("text_config", {"rope_parameters": "linear"})]
)
def test_a_configuration_with_another_shape_is_refused(folder: Path, section: str, value: Any) -> None:
    found = json.loads((folder / "config.json").read_text()) | {section: value}
    (folder / "config.json").write_text(json.dumps(found))
    with pytest.raises(BadPublished, match=r"config\.json: .* not an object"):
        read(folder)


ATTENTION = "model.language_model.layers.1.self_attn.k_proj.weight"


def test_a_missing_tensor_is_named_as_the_files_name_it(folder: Path) -> None:
    change(folder, lambda state: state.pop(ATTENTION))
    with pytest.raises(BadPublished, match=rf"the tensor {ATTENTION} is missing \(1 missing\)"):
        read(folder)


def test_a_wrong_shape_is_named_with_both(folder: Path) -> None:
    change(folder, lambda state: state.update({ATTENTION: torch.zeros(16, 32)}))
    with pytest.raises(BadPublished, match=rf"{ATTENTION} is \(16, 32\), this preset needs \(32, 32\)"):
        read(folder)


def test_an_unknown_tensor_is_another_architecture(folder: Path) -> None:
    change(folder, lambda state: state.update({"model.high_res_vision_model.blocks.0.weight": torch.zeros(2)}))
    with pytest.raises(BadPublished, match="belongs to another architecture"):
        read(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float64])
def test_only_floats_of_the_published_kinds_are_weights(folder: Path, dtype: torch.dtype) -> None:
    change(folder, lambda state: state.update({ATTENTION: state[ATTENTION].to(dtype)}))
    with pytest.raises(BadPublished, match=rf"{ATTENTION} is stored as .*weights must be F16, BF16, F32"):
        read(folder)


def test_values_that_are_no_numbers_are_named(folder: Path) -> None:
    change(folder, lambda state: state[ATTENTION].fill_(float("nan")))
    with pytest.raises(BadPublished, match=rf"{ATTENTION} holds NaN"):
        read(folder)


def test_pickled_weights_are_not_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadPublished, match="convert them with safetensors"):
        read(folder)


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("text_config", "num_attention_heads", 4, "attention heads of the trunk 4"),
        ("text_config", "rms_norm_eps", 1e-5, "norm epsilon"),
        ("text_config", "hidden_act", "gelu", "activation of the trunk"),
        ("text_config", "attention_bias", True, "biases in attention"),
        ("text_config", "mlp_bias", True, "mlp_bias"),
        ("text_config", "rope_theta", 1e6, "rotary base"),
        ("text_config", "rope_scaling", {"type": "linear", "factor": 2.0}, r"\(rope_scaling\) linear"),
        ("text_config", "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, r"\(rope_parameters\) yarn"),
        ("text_config", "rope_parameters", {"rope_theta": 5e5}, r"base \(rope_parameters\) 500000"),
        ("vision_config", "hidden_act", "gelu_pytorch_tanh", "activation of the tower"),
        ("vision_config", "layer_norm_eps", 1e-5, "norm epsilon of the tower"),
        ("vision_config", "image_size", 64, "image size 64"),
    ],
)
def test_a_configuration_that_contradicts_the_preset_is_refused(
    folder: Path, section: str, key: str, value: Any, says: str
) -> None:
    found = json.loads((folder / "config.json").read_text())
    found[section][key] = value
    (folder / "config.json").write_text(json.dumps(found))
    with pytest.raises(BadPublished, match=says):
        read(folder)


def test_positions_that_are_stated_not_to_be_scaled_are_read(folder: Path) -> None:
    found = json.loads((folder / "config.json").read_text())
    found["text_config"] |= {"rope_scaling": None, "rope_theta": 10000.0, "attention_bias": False}
    del found["text_config"]["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(found))
    assert read(folder).state


def test_the_licence_is_the_directorys(folder: Path) -> None:
    assert read(folder).licence == "deepseek"
    (folder / "README.md").unlink()
    (folder / "LICENSE-MODEL").write_text("\nDEEPSEEK LICENSE AGREEMENT\nmore\n")
    assert read(folder).licence == "DEEPSEEK LICENSE AGREEMENT"
    (folder / "LICENSE-MODEL").unlink()
    assert "not stated" in read(folder).licence


def test_a_folder_that_is_none_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(BadPublished, match="give the one with"):
        read(tmp_path / "nowhere")
