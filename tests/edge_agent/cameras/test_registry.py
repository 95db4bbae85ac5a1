from __future__ import annotations

import pytest

from edge_agent.cameras.registry import UnknownCamera, camera_kind
from simulators.camera import open_camera


def test_kinds_come_from_the_package_and_from_entry_points() -> None:
    assert camera_kind("folder").__name__ == "open_camera"
    assert camera_kind("simulated") is open_camera


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(UnknownCamera, match="folder, simulated"):
        camera_kind("gige")
