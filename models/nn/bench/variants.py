"""The runtimes and quantizers that are compared. Each imports what it needs in its own process, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.nn.bench.child import NotHere
from models.nn.bench.measure import Latency, latency, resident_mb
from models.nn.config import EdgeConfig
from models.runtime.base import SessionLimits, new_session

F32 = NDArray[np.float32]
Run = Callable[[], F32]
PLAIN, WHOLE, OURS = "plain.onnx", "whole.onnx", "ours.onnx"
TOKENS, WEIGHTS = "tokens.npy", "trunk.safetensors"
BLOCK = 128


@dataclass(frozen=True, slots=True)
class Task:
    """What a child process gets. `folder` holds the graphs, the tokens [B, N, C] and the torch weights."""

    variant: str
    folder: Path
    threads: int


def _onnxruntime(path: Path, tokens: F32, threads: int) -> Run:
    session = new_session(str(path), SessionLimits(threads=threads))
    return lambda: session.run(["embedding"], {"tokens": tokens})[0]


def _ours(task: Task, tokens: F32, _config: EdgeConfig) -> Run:
    return _onnxruntime(task.folder / OURS, tokens, task.threads)


def _plain(task: Task, tokens: F32, _config: EdgeConfig) -> Run:
    return _onnxruntime(task.folder / PLAIN, tokens, task.threads)


def _quantize_dynamic(source: str) -> Callable[[Task, F32, EdgeConfig], Run]:
    def make(task: Task, tokens: F32, _config: EdgeConfig) -> Run:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        made = task.folder / f"dynamic-{source}"
        quantize_dynamic(
            task.folder / source, made, op_types_to_quantize=["MatMul"], per_channel=True,
            weight_type=QuantType.QInt8, use_external_data_format=True, extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
        return _onnxruntime(made, tokens, task.threads)

    return make


def _nbits(bits: int) -> Callable[[Task, F32, EdgeConfig], Run]:
    def make(task: Task, tokens: F32, _config: EdgeConfig) -> Run:
        import onnx

        try:
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
        except ImportError as missing:
            raise NotHere("its quantizer needs onnx_ir: pip install onnx_ir") from missing
        quantizer = MatMulNBitsQuantizer(
            onnx.load(task.folder / PLAIN), bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
        made = task.folder / f"nbits{bits}.onnx"
        quantizer.model.save_model_to_file(str(made), use_external_data_format=True)
        return _onnxruntime(made, tokens, task.threads)

    return make


def _openvino(properties: dict[str, Any], source: str = PLAIN) -> Callable[[Task, F32, EdgeConfig], Run]:
    def make(task: Task, tokens: F32, _config: EdgeConfig) -> Run:
        try:
            import openvino
        except ImportError as missing:
            raise NotHere("not installed: pip install openvino") from missing
        core = openvino.Core()
        model = core.read_model(task.folder / source)
        if properties.get("compress"):
            nncf = _nncf()
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        settings = {
            "INFERENCE_NUM_THREADS": task.threads, "PERFORMANCE_HINT": "LATENCY",
            **{key: value for key, value in properties.items() if key != "compress"},
        }  # fmt: skip
        compiled = core.compile_model(model, "CPU", settings)
        port = next(one for one in compiled.outputs if "embedding" in one.get_names())
        return lambda: np.asarray(compiled({"tokens": tokens})[port])

    return make


def _nncf() -> Any:
    try:
        import nncf
    except ImportError as missing:
        raise NotHere("its int8 recipe needs nncf: pip install nncf") from missing
    return nncf


def _torch(dtype: str, *, compiled: bool) -> Callable[[Task, F32, EdgeConfig], Run]:
    def make(task: Task, tokens: F32, config: EdgeConfig) -> Run:
        import torch
        from safetensors.torch import load_file

        from models.nn.model import Trunk

        torch.set_num_threads(task.threads)
        trunk = Trunk(config).eval()
        trunk.load_state_dict(load_file(task.folder / WEIGHTS))
        trunk = trunk.to(getattr(torch, dtype))
        forward = torch.compile(trunk) if compiled else trunk
        given = torch.from_numpy(tokens).to(getattr(torch, dtype))

        def run() -> F32:
            with torch.inference_mode():
                return forward(given).float().numpy()

        try:
            run()
        except Exception as fault:  # the compiler's own errors have no common type
            raise NotHere(f"{type(fault).__name__}: {str(fault).splitlines()[0][:120]}") from fault
        return run

    return make


OURS_NAME, REFERENCE = "edgeloop W8A8 per token", "onnxruntime float32"
UNTRIMMED = ", last layer whole"
"""Of peers on the graph that any exporter would give: what our own trim saves is not given to them."""
_OPENVINO_INT8 = {"compress": True, "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128"}
VARIANTS: dict[str, Callable[[Task, F32, EdgeConfig], Run]] = {
    OURS_NAME: _ours,
    "onnxruntime quantize_dynamic": _quantize_dynamic(PLAIN),
    f"onnxruntime quantize_dynamic{UNTRIMMED}": _quantize_dynamic(WHOLE),
    "OpenVINO dynamic int8": _openvino(_OPENVINO_INT8),
    f"OpenVINO dynamic int8{UNTRIMMED}": _openvino(_OPENVINO_INT8, WHOLE),
    "OpenVINO default": _openvino({}),
    "onnxruntime MatMulNBits int8": _nbits(8),
    "onnxruntime MatMulNBits int4": _nbits(4),
    REFERENCE: _plain,
    "torch eager float32": _torch("float32", compiled=False),
    "torch eager bfloat16": _torch("bfloat16", compiled=False),
    "torch compiled float32": _torch("float32", compiled=True),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What a child process found: latencies, seconds until it was ready, memory in MB, and its embeddings [B, D].

    `ratio` is the median over calls in turn of its time divided by that of our own graph.
    """

    latency: Latency
    ratio: float
    load_s: float
    resident_mb: float
    embedding: F32


def measure_peer(task: Task, config: EdgeConfig, calls: int) -> Measured:
    """Run one variant, in this process; then our own graph joins it, and the two are called in turns.

    Raises:
        NotHere: it cannot run here.
    """
    tokens = np.load(task.folder / TOKENS)
    before = time.perf_counter()
    run = VARIANTS[task.variant](task, tokens, config)
    load_s = time.perf_counter() - before
    found = run()
    alone, held = latency(run, calls=calls), resident_mb()
    return Measured(alone, _ratio(run, _ours(task, tokens, config), calls), load_s, held, found)


def _ratio(run: Run, ours: Run, calls: int) -> float:
    ours()
    ratios = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        between = time.perf_counter()
        ours()
        ratios.append((between - start) / (time.perf_counter() - between))
    return float(np.median(ratios))
