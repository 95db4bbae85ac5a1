"""Runs a command that must not outlive the process which asked for it: ``guard.py PARENT_PID COMMAND ...``.

Run as a script with ``-I -S``, so it costs a few milliseconds, then it becomes the command. On Linux the kernel sends
SIGTERM to the command when the parent dies, however it dies (prctl(2), PR_SET_PDEATHSIG survives execve); elsewhere
only the parent's own clean-up stops it. The parent must start it from its main thread: the signal is sent when that
thread ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
COMMAND_NOT_RUN = 127


def main(arguments: list[str]) -> int:
    """Never returns if the command can be run."""
    parent, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(parent):  # it died before the line above
            return 128 + signal.SIGTERM
    try:
        os.execvp(command[0], command)
    except OSError as fault:
        print(f"{command[0]}: {fault.strerror}", file=sys.stderr)
        return COMMAND_NOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
