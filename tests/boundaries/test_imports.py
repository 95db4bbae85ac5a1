"""The import rules of pyproject.toml hold, and each shipped role starts where what it must not need is missing.

The static rules (import-linter) see every import statement; the fresh interpreters see what really runs at import.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEARNING = ("torch", "transformers", "peft", "accelerate", "onnx")
SERVING = ("fastapi", "starlette", "uvicorn", "jinja2", "babel", "sqlalchemy", "alembic", "minio", "httpx")
INFERENCE = ("numpy", "onnxruntime", "cv2", "safetensors")
NETWORK = ("paho", "tuf", "securesystemslib", "cryptography")

BLOCKER = """
import importlib, importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def __init__(self, names):
        self.names = frozenset(names)

    def find_spec(self, name, path=None, target=None):
        if name in self.names or name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

blocked, modules = (argument.split(",") for argument in sys.argv[1:3])
sys.meta_path.insert(0, Missing(blocked))
for module in modules:
    importlib.import_module(module)
print("\\n".join(sorted(sys.modules)))
"""

ROLES = {
    "edge": (
        ["edge_agent.cli", "edge_agent.app", "edge_agent.doctor", "edge_agent.status", "ota.client", "models.link"],
        [*LEARNING, *SERVING, "cloud", "simulators", "models.nn", "ota.publish", "ota.repository", "ota.keys"],
    ),
    "ota client": (
        ["ota.client", "ota.errors"],
        [*LEARNING, *SERVING, *INFERENCE, "cloud", "edge_agent", "simulators"],
    ),
    "ota server": (
        ["ota.server"],
        [*LEARNING, *INFERENCE, "sqlalchemy", "fastapi", "cloud", "edge_agent", "simulators"],
    ),
    "ota command": (
        ["ota.cli", "ota.keys", "ota.repository"],
        [*LEARNING, *INFERENCE, "sqlalchemy", "fastapi", "cloud", "edge_agent", "simulators", "models.nn"],
    ),
    "cloud": (
        ["cloud.cli", "cloud.web", "cloud.bootstrap", "cloud.serve", "cloud.doctor"],
        [*LEARNING, "edge_agent", "simulators", "models.nn"],
    ),
    "gate": (["cloud.gate.service", "cloud.gate.evaluate"], [*LEARNING, "edge_agent", "simulators", "models.nn"]),
    "runtime": (
        ["models.runtime.inspector", "models.runtime.calibrate", "models.runtime.bundle", "models.runtime.golden"],
        [*LEARNING, *SERVING, *NETWORK, "cloud", "edge_agent", "ota", "simulators", "models.nn"],
    ),
    "contracts": (
        [f"models.contracts.{path.stem}" for path in sorted((ROOT / "models/contracts").glob("*.py"))],
        [*LEARNING, *SERVING, *INFERENCE, *NETWORK, "cloud", "edge_agent", "ota", "simulators", "typer", "rich"],
    ),
    "dispatch": (
        ["models.dispatch"],
        [*LEARNING, *SERVING, *INFERENCE, *NETWORK, "pydantic", "typer", "rich", "cloud", "edge_agent", "ota"],
    ),
}


def loaded(modules: list[str], blocked: list[str]) -> set[str]:
    """All modules a fresh interpreter holds after importing `modules` where `blocked` are not installed."""
    names = [name.removesuffix(".__init__") for name in modules]
    command = [sys.executable, "-W", "error", "-c", BLOCKER, ",".join(blocked), ",".join(names)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_the_import_rules_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert f"Contracts: {len(rules)} kept, 0 broken" in run.stdout, run.stdout


@pytest.mark.parametrize("role", ROLES)
def test_a_role_starts_without_what_it_must_not_need(role: str) -> None:
    modules, blocked = ROLES[role]
    assert loaded(modules, blocked)


def test_the_blocker_blocks() -> None:
    with pytest.raises(AssertionError, match="No module named 'tuf"):
        loaded(["ota.client"], ["tuf"])


def test_dispatch_imports_none_of_our_rooms_and_nothing_installed() -> None:
    held = {name.partition(".")[0] for name in loaded(["models.dispatch"], ["numpy"])}
    assert not held & {"cloud", "edge_agent", "ota", "simulators", "typer", "pydantic", "click", "rich"}
    ours = {name for name in loaded(["models.dispatch"], ["numpy"]) if name.startswith("models.")}
    assert ours == {"models.dispatch"}


@pytest.mark.parametrize("command", ["agent", "cloud", "ota", "models", "simulate", "demo", "bench"])
def test_help_loads_nothing_heavy(command: str) -> None:
    """Each role imports its code inside its sub-command, so that help comes at once."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["edgeloop.commands"]
    held = {name.partition(".")[0] for name in loaded([points[command].partition(":")[0]], ["nothing"])}
    assert not held & {"torch", "transformers", "onnxruntime", "cv2", "sqlalchemy", "fastapi", "matplotlib"}


def test_every_folder_of_tests_is_a_package() -> None:
    """Two tests of one file name in two folders that are no packages would shadow each other."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    bare = [folder for folder in folders if not (folder / "__init__.py").is_file()]
    assert not bare
    assert (ROOT / "tests" / "__init__.py").is_file()
