"""What is in the wheel: every file of the five rooms, the licences and the entry points; no test, no rubbish."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from email import message_from_string
from importlib.metadata import requires
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.conftest import ROOT

ROOMS = ("cloud", "edge_agent", "models", "ota", "simulators")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def archive(wheel: Path) -> Iterator[ZipFile]:
    with ZipFile(wheel) as opened:
        yield opened


def info(archive: ZipFile, name: str) -> str:
    return archive.read(f"edgeloop-{PROJECT['version']}.dist-info/{name}").decode()


def test_every_file_of_every_room_is_inside(archive: ZipFile) -> None:
    inside = {name for name in archive.namelist() if name.partition("/")[0] in ROOMS}
    here = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == here


@pytest.mark.parametrize(
    ("folder", "ending"),
    [
        ("cloud/dashboard/templates", ".html"),
        ("cloud/dashboard/static", ".css"),
        ("cloud/dashboard/static/vendor", ".min.js"),
        ("cloud/dashboard/locale/zh/LC_MESSAGES", ".po"),
        ("cloud/dashboard/locale/en/LC_MESSAGES", ".po"),
        ("cloud/db/migrations", "env.py"),
        ("cloud/db/migrations", ".mako"),
        ("cloud/db/migrations/versions", ".py"),
    ],
)
def test_what_a_role_reads_beside_its_code_is_inside(archive: ZipFile, folder: str, ending: str) -> None:
    assert [name for name in archive.namelist() if name.startswith(f"{folder}/") and name.endswith(ending)]


def test_nothing_else_is_inside(archive: ZipFile) -> None:
    tops = {name.partition("/")[0] for name in archive.namelist()}
    assert tops == {*ROOMS, f"edgeloop-{PROJECT['version']}.dist-info"}
    names = archive.namelist()
    assert not [name for name in names if "test" in name.split("/") or "tests" in name.split("/")]
    assert not [name for name in names if name.endswith((".pyc", ".pth", ".onnx", ".safetensors", ".pem", ".db"))]


def test_every_folder_with_code_is_a_package(archive: ZipFile) -> None:
    names = set(archive.namelist())
    folders = {name.rpartition("/")[0] for name in names if name.endswith(".py")}
    assert not {folder for folder in folders if f"{folder}/__init__.py" not in names}


def test_the_licences_are_inside(archive: ZipFile) -> None:
    for name in ("LICENSE", "NOTICE"):
        assert info(archive, f"licenses/{name}") == (ROOT / name).read_text()


def test_the_metadata_says_what_pyproject_says(archive: ZipFile) -> None:
    metadata = message_from_string(info(archive, "METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("edgeloop", PROJECT["version"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])


def test_every_command_and_camera_points_at_code_inside(archive: ZipFile) -> None:
    points = ConfigParser(delimiters=("=",))
    points.read_string(info(archive, "entry_points.txt"))
    assert set(points.sections()) == {"console_scripts", *PROJECT["entry-points"]}
    modules = {value.partition(":")[0] for section in points.sections() for value in points[section].values()}
    inside = set(archive.namelist())
    assert not {name for name in modules if f"{name.replace('.', '/')}.py" not in inside}


def test_one_exact_version_is_pinned_for_each_package() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^ ;]+(?: ; .+)?", line) for line in pin_lines())
    names = [canonicalize_name(line.partition("==")[0]) for line in pin_lines()]
    assert len(set(names)) == len(names)


def test_every_dependency_is_pinned_however_deep() -> None:
    """From pyproject.toml's extras down through the metadata of what is installed here."""
    pins = {canonicalize_name(line.partition("==")[0]) for line in pin_lines()}
    extras = PROJECT["optional-dependencies"].values()
    asked = [Requirement(text) for text in [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]]
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(one.name), extra) for one in asked for extra in ("", *one.extras)]
    while waiting:
        name, extra = waiting.pop()
        if name == "edgeloop" or (name, extra) in seen:
            continue
        seen.add((name, extra))
        for one in map(Requirement, requires(name) or []):
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(one.name), inner) for inner in ("", *one.extras)]
    assert not {name for name, _ in seen} - pins


def pin_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
