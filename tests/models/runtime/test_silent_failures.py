"""ONNX Runtime fails silently around adapters; each way it does, and what keeps a box from it.

Elsewhere: a missing or unknown name and a flipped bit (`test_adapter`), an adapter that was not applied
(`test_inspector`), swaps under load (`test_inspector` and `models/nn/bench`).
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from models.nn.config import tiny
from models.nn.export import export_trunk
from models.nn.model import DeepSeekEdge
from models.runtime.adapter import read_adapter, write_adapter
from models.runtime.base import BadBase, Base, Feeds
from tests.models.runtime.tiny import IMAGE, lora, tiny_base, tiny_release

ROOT = Path(__file__).parents[3]
TOKENS = np.random.default_rng(0).normal(0, 1, (1, 16, 24)).astype(np.float32)
UNSAFE = re.compile(r"add_active_adapter|LoraAdapter\(|run_with_iobinding|io_binding\(")


def feeds(seed: int) -> Feeds:
    """An adapter as a box holds it; the file, the reader's arrays and the reader are gone when this returns."""
    data = write_adapter(lora(tiny_base(), seed), version=seed)
    arrays = read_adapter(data, tiny_base().manifest.lora)
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}


def test_an_adapter_lives_as_long_as_it_is_used() -> None:
    """`RunOptions.add_active_adapter` does not keep what it was given: after `del` other weights answer."""
    base, kept = tiny_base().open(), feeds(1)
    expected = base.embed(TOKENS, kept).embedding
    for seed in range(2, 12):  # memory that was freed would be used again
        base.embed(TOKENS, feeds(seed))
        gc.collect()
    assert np.array_equal(base.embed(TOKENS, kept).embedding, expected)


def test_nothing_of_an_adapter_with_the_same_names_is_left_after_the_next() -> None:
    """Two active adapters with the same names raise nothing; a box feeds exactly one."""
    alone = tiny_base().open().embed(TOKENS, feeds(2)).embedding
    base = tiny_base().open()
    first = base.embed(TOKENS, feeds(1)).embedding
    assert np.array_equal(base.embed(TOKENS, feeds(2)).embedding, alone)
    assert not np.array_equal(first, alone)


RESIDENT = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime as ort
from models.contracts.base import decode
from models.contracts.model_manifest import AdapterManifest, BaseManifest
from models.runtime.base import Base
from models.runtime.inspector import load_model

folder, way = Path(sys.argv[1]), sys.argv[2]
held = lambda name: (folder / name).read_bytes()
base = Base(decode(BaseManifest, held("base.json")), tower=held("tower"), trunk=held("trunk"))
manifest, tokens = decode(AdapterManifest, held("adapter.json")), np.load(folder / "tokens.npy")
file = folder / manifest.adapter.blob.sha256
if way == "box":
    blobs = {blob.sha256: held(blob.sha256) for blob in manifest.blobs()}
    lora = load_model(base, manifest, base_sha=manifest.base, blobs=blobs, release=1).lora
    answer = lambda: base.embed(tokens, lora).embedding
else:
    session, adapter, options = ort.InferenceSession(held("trunk")), ort.LoraAdapter(), ort.RunOptions()
    adapter.Load(str(file))
    options.add_active_adapter(adapter)
    answer = lambda: session.run(["embedding"], {"tokens": tokens}, options)[0]
before = answer()
assert not np.array_equal(before, base.embed(tokens, {}).embedding)
with file.open("r+b") as opened:
    opened.write(bytes(file.stat().st_size))
overwritten = answer()
print("overwritten: the same" if np.array_equal(before, overwritten) else "overwritten: another answer", flush=True)
with file.open("r+b") as opened:
    opened.truncate(0)
cut = answer()
print("truncated: the same" if np.array_equal(before, cut) else "truncated: another answer", flush=True)
"""
"""A process that holds an adapter while somebody writes into its file."""


def resident(folder: Path, way: str) -> subprocess.CompletedProcess[str]:
    base, release = tiny_base(), tiny_release(1)
    contents = {
        "base.json": base.manifest.encode(), "adapter.json": release.manifest.encode(),
        "tower": base.bytes_of("tower"), "trunk": base.bytes_of("trunk"), **release.blobs,
    }  # fmt: skip
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    np.save(folder / "tokens.npy", TOKENS)
    words = [sys.executable, "-c", RESIDENT, str(folder), way]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_file_that_is_overwritten_and_cut_under_a_box_changes_nothing(tmp_path: Path) -> None:
    done = resident(tmp_path, "box")
    assert (done.returncode, done.stdout) == (0, "overwritten: the same\ntruncated: the same\n"), done.stderr


def test_onnx_runtime_alone_answers_from_the_file_as_it_is_now(tmp_path: Path) -> None:
    """Why a box keeps copies: `LoraAdapter.Load` maps the file, and a page that was cut off ends the process."""
    done = resident(tmp_path, "mapped")
    assert done.stdout.startswith("overwritten: another answer"), done.stderr
    assert done.returncode != 0 or "truncated: another answer" in done.stdout


def test_no_shipped_code_goes_a_way_that_ignores_or_drops_adapters() -> None:
    """`run_with_iobinding` ignores active adapters, and active adapters are neither kept nor checked."""
    rooms = ("models", "edge_agent", "cloud", "ota", "simulators")
    code = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert len(code) > 100
    called = [path for path in code if re.search(UNSAFE, _without_text(path.read_text(encoding="utf-8")))]
    assert not called


def _without_text(source: str) -> str:
    """Code without docstrings and comments, which may name what must not be called."""
    return re.sub(r'""".*?"""|#[^\n]*', "", source, flags=re.DOTALL)


def test_a_trunk_that_lost_its_lora_inputs_is_refused() -> None:
    """`MatMulNBitsQuantizer` after LoRA insertion deletes the inputs; such a graph would judge as the bare base."""
    torch.manual_seed(0)
    config = tiny("1.7b", image=IMAGE)
    bare = export_trunk(DeepSeekEdge(config).eval().trunk, config, lora=False).SerializeToString()
    with pytest.raises(BadBase, match=r"lora_A is None, the manifest says"):
        Base(tiny_base().manifest, tower=tiny_base().bytes_of("tower"), trunk=bare)
