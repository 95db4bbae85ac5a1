"""The frozen base in ONNX Runtime: tower and trunk sessions, loaded once, shared by every adapter on the box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.contracts.model_manifest import BaseManifest

F32 = NDArray[np.float32]
Feeds = Mapping[str, ort.OrtValue]


class BadBase(ValueError):
    """The graphs do not match their manifest."""


class TrunkOutput(NamedTuple):
    """`embedding` [B, D]; `evidence` [B, N, D], what each image patch added to it in the last layer."""

    embedding: F32
    evidence: F32


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """`threads` per operator. Spinning is off: several sessions and the rest of the box share the cores."""

    threads: int = 1


def new_session(model: bytes | str, limits: SessionLimits) -> ort.InferenceSession:
    """A session as boxes run it: sequential, no spinning threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = limits.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # every LoRA input has a default on purpose; the warnings about it are noise
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Base:
    """A loaded base. Thread-safe: sessions are, and nothing here changes after construction."""

    def __init__(
        self, manifest: BaseManifest, *, tower: bytes | str, trunk: bytes | str, limits: SessionLimits | None = None
    ) -> None:
        """Args: graphs as bytes, or as paths of verified files when they carry external data.

        Raises:
            BadBase: an input or output is missing or of another shape than the manifest says.
        """
        limits = limits or SessionLimits()
        self.manifest = manifest
        self.sha256 = manifest.digest()
        self._tower = new_session(tower, limits)
        self._trunk = new_session(trunk, limits)
        self._check()

    def _check(self) -> None:
        inputs = {i.name: i.shape for i in [*self._trunk.get_inputs(), *self._trunk.get_overridable_initializers()]}
        for spec in self.manifest.lora:
            if inputs.get(spec.name) != list(spec.shape):
                raise BadBase(f"the trunk's {spec.name} is {inputs.get(spec.name)}, the manifest says {spec.shape}")
        spec = self.manifest.preprocessing
        if self._tower.get_inputs()[0].shape[1:] != [3, spec.height, spec.width]:
            raise BadBase(f"the tower takes {self._tower.get_inputs()[0].shape}, not 3 x {spec.height} x {spec.width}")
        if [o.name for o in self._trunk.get_outputs()] != ["embedding", "evidence"]:
            raise BadBase("the trunk must have the outputs embedding and evidence")

    def tokens(self, pixels: F32) -> F32:
        """Preprocessed pixels [B, 3, H, W] to image tokens [B, N, C]; the same for every adapter."""
        return self._tower.run(["tokens"], {"pixels": pixels})[0]

    def embed(self, tokens: F32, lora: Feeds) -> TrunkOutput:
        """Image tokens [B, N, C] to embedding and evidence under an adapter; empty `lora` is the bare base."""
        feeds = {"tokens": ort.OrtValue.ortvalue_from_numpy(tokens), **lora}
        embedding, evidence = self._trunk.run_with_ort_values(["embedding", "evidence"], feeds)
        return TrunkOutput(embedding.numpy(), evidence.numpy())
