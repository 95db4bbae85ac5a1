"""Names in the TUF repository: roles, their lifetimes and thresholds, and target paths.

    root -> targets -> base, adapter-<line>, channel-<line>, device; snapshot; timestamp

Delegations are terminating and their paths disjoint. In TUF a ``*`` never crosses ``/``, so patterns name the
exact depth. A path is never reused for other bytes, and blobs are stored on a box by digest, never by path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

TARGET_PATH = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*){1,3}")
MAX_TARGET_PATH = 200

BASE_ROLE = "base"
DEVICE_ROLE = "device"


@dataclass(frozen=True, slots=True)
class RolePolicy:
    """`threshold` of `keys` signatures; metadata lives for `lifetime`. Offline keys never touch a service."""

    threshold: int
    keys: int
    lifetime: timedelta
    online: bool


POLICIES: dict[str, RolePolicy] = {
    "root": RolePolicy(2, 3, timedelta(days=365), online=False),
    "targets": RolePolicy(2, 3, timedelta(days=180), online=False),
    "base": RolePolicy(2, 3, timedelta(days=90), online=False),
    "adapter": RolePolicy(2, 2, timedelta(days=7), online=True),
    "channel": RolePolicy(1, 1, timedelta(hours=72), online=True),
    "device": RolePolicy(1, 1, timedelta(hours=72), online=True),
    "snapshot": RolePolicy(1, 1, timedelta(days=7), online=True),
    "timestamp": RolePolicy(1, 1, timedelta(hours=24), online=True),
}
"""Defaults of a small plant; a larger one raises root to 3 of 5. Adapter keys: one the trainer's, one the gate's."""


def adapter_role(line: str) -> str:
    """Delegated role that says which adapter releases of `line` are good."""
    return f"adapter-{line}"


def channel_role(line: str) -> str:
    """Delegated role that chooses which release `line` runs."""
    return f"channel-{line}"


def base_patterns() -> list[str]:
    """Target path patterns of the base role."""
    return ["base/*/*"]


def adapter_patterns(line: str) -> list[str]:
    """Target path patterns of a line's adapter role."""
    return [f"adapter/{line}/*"]


def channel_patterns(line: str) -> list[str]:
    """Target path patterns of a line's channel role."""
    return [f"channel/{line}/*"]


def base_manifest_path(family: str, version: int) -> str:
    return f"base/{family}/v{version}.manifest.json"


def base_chunk_url(family: str, sha256: str) -> str:
    """Where a chunk lies below the targets URL. It is no TUF target: trust comes from the signed manifest."""
    return f"base/{family}/chunks/{sha256[:2]}/{sha256}"


def adapter_manifest_path(line: str, release: int) -> str:
    return f"adapter/{line}/r{release:06d}.manifest.json"


def adapter_blob_path(line: str, release: int, kind: str) -> str:
    """`kind` is ``onnx_adapter``, ``head`` or ``refs``."""
    return f"adapter/{line}/r{release:06d}.{kind}"


def channel_path(line: str, channel: str) -> str:
    return f"channel/{line}/{channel}.json"


def assignment_path(edge: str) -> str:
    """Pins, holds and named overrides of one box."""
    return f"assign/{edge}.json"


def check_target_path(path: str) -> str:
    """The path itself, if publisher and box may use it.

    Raises:
        ValueError: traversal, upper case, control characters, wrong depth or over 200 characters.
    """
    if len(path) > MAX_TARGET_PATH or not TARGET_PATH.fullmatch(path):
        raise ValueError(f"not an allowed target path: {path[:80]!r}")
    return path
