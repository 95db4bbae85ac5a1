"""Camera kinds by name: the folder, and whatever an installed package registers in ``edgeloop.cameras``."""

from __future__ import annotations

from importlib.metadata import entry_points

from edge_agent.cameras import OpenCamera, folder

GROUP = "edgeloop.cameras"
BUILT_IN: dict[str, OpenCamera] = {"folder": folder.open_camera}


class UnknownCamera(ValueError):
    """No camera of that kind is installed."""


def camera_kind(kind: str) -> OpenCamera:
    """The opener of that kind.

    Raises:
        UnknownCamera: naming the kinds there are.
    """
    if kind in BUILT_IN:
        return BUILT_IN[kind]
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in installed:
        raise UnknownCamera(f"no camera of kind {kind!r}; installed: {', '.join(sorted([*BUILT_IN, *installed]))}")
    opener: OpenCamera = installed[kind].load()
    return opener
