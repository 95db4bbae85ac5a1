"""The two models that are trained outside the loop: the starting model and the joint reference, each kept by digest.

A cached model is named by everything that decides it: the code that trains it, the versions of the libraries, every
image and label, preset and seed. Same name, same model; `fresh` trains again. Training runs in a process of its own,
because this one must stay small and free of torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import models.contracts
import models.nn
import models.runtime
from models.contracts.base import canonical, sha256_hex
from models.runtime.bundle import is_complete
from simulators.cells import Cell
from simulators.demo import job, scenario
from simulators.demo.scenario import LINE, Scenario
from simulators.servers.children import Command, Servers, python_module

Kind = Literal["starting", "joint"]
LIBRARIES = ("torch", "transformers", "peft", "onnx", "onnxruntime", "numpy")
DECIDING = (models.nn, models.runtime, models.contracts, scenario, job)
SOURCES = tuple(Path(str(module.__file__)) for module in DECIDING)
TRAIN_WITHIN_S = 1800.0


@dataclass(frozen=True, slots=True)
class Request:
    """What to train. `validation` calibrates and sets thresholds; `starting` is the folder of the starting model that a
    joint reference is built on."""

    kind: Kind
    cells: Sequence[Cell]
    replay: Sequence[Cell]
    validation: Sequence[Cell]
    scenario: Scenario
    starting: Path | None = None

    def name(self) -> str:
        """Digest of everything that decides the outcome."""
        parts = {
            "kind": self.kind,
            "code": code_digest(),
            "libraries": {library: version(library) for library in LIBRARIES},
            "cells": [_named(cell) for cell in self.cells],
            "replay": [_named(cell) for cell in self.replay],
            "validation": [_named(cell) for cell in self.validation],
            "preset": self.scenario.preset,
            "seed": self.scenario.seed,
            "starting": None if self.starting is None else self.starting.name,
        }
        return sha256_hex(canonical(parts))[:32]

    def document(self, out: Path) -> dict[str, object]:
        """What the training process reads."""
        return {
            "kind": self.kind,
            "line": LINE,
            "preset": self.scenario.preset,
            "seed": self.scenario.seed,
            "out": str(out),
            "starting": None if self.starting is None else str(self.starting),
            "images": [_listed(cell) for cell in self.cells],
            "replay": [_listed(cell) for cell in self.replay],
            "validation": [_listed(cell) for cell in self.validation],
        }


def _named(cell: Cell) -> list[str]:
    return [sha256_hex(cell.path.read_bytes()), cell.label, str(cell.block)]


def _listed(cell: Cell) -> dict[str, str]:
    return {"path": str(cell.path), "label": cell.label, "domain": cell.kind, "group": f"block-{cell.block}"}


def code_digest() -> str:
    """SHA-256 over the sources that decide what a trained model is."""
    digest = hashlib.sha256()
    for path in (file for source in SOURCES for file in _files(source)):
        digest.update(f"{path.parent.name}/{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _files(source: Path) -> list[Path]:
    """A package's modules, or a module alone."""
    if source.is_dir():
        return sorted(source.rglob("*.py"))
    return sorted(source.parent.rglob("*.py")) if source.name == "__init__.py" else [source]


def obtain(
    request: Request, cache: Path, servers: Servers, *, fresh: bool, tick: Callable[[], None] = lambda: None
) -> tuple[Path, bool]:
    """The folder of the trained model, and whether it came from the cache.

    Raises:
        ServerError: training failed; the text quotes its last line.
    """
    folder = cache / f"{request.kind}-{request.name()}"
    if is_complete(folder) and not fresh:
        return folder, True
    begin(request, folder, servers)
    name = process_name(request)

    def over() -> bool:
        tick()
        return is_complete(folder)

    servers.wait(over, what=name, within=TRAIN_WITHIN_S)
    servers.stop(name)
    return folder, False


def begin(request: Request, folder: Path, servers: Servers) -> None:
    """Start the training process."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    document = folder / "request.json"
    document.write_text(json.dumps(request.document(folder)))
    servers.start(
        Command(process_name(request), python_module("simulators.demo.job", str(document)), tier=2, ends=True)
    )


def process_name(request: Request) -> str:
    return f"train-{request.kind}"
