"""Finding server programs: beside this Python (where wheels put them), on PATH, then where packages of a system do."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from simulators.servers.errors import ProgramMissing

SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
"""Servers live here, and the PATH of an ordinary user often lacks it."""


def find_program(name: str, *, path: str | None = None) -> Path | None:
    """The program, or None.

    Args:
        path: search this instead of PATH, in the form of PATH; the folder of this Python still comes first.
    """
    beside = Path(sys.executable).parent / name
    if beside.is_file() and os.access(beside, os.X_OK) and path is None:
        return beside
    folders = os.environ.get("PATH", "") + os.pathsep + os.pathsep.join(SYSTEM_FOLDERS) if path is None else path
    found = shutil.which(name, path=folders)
    return Path(found) if found else None


def require_program(name: str, *, hint: str, path: str | None = None) -> Path:
    """The program.

    Raises:
        ProgramMissing: saying `hint`.
    """
    found = find_program(name, path=path)
    if found is None:
        raise ProgramMissing(f"the program {name!r} is missing: {hint}")
    return found
