"""A set of child processes: started one by one with a readiness probe, watched, and stopped in tiers.

Rules: a child is its own session, so Ctrl-C in the terminal reaches only this process, which then stops its children
in order; every child dies with this process however that ends (see `guard`); only what was started here is ever
signalled; stdout and stderr of a child go to one log file. Start children from the main thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from simulators.servers.errors import DiskFull, NotReady, PortInUse, ServerDied, ServerError

GUARD = Path(__file__).with_name("guard.py")
POLL_S = 0.05
STOP_S = 10.0
TAIL_BYTES = 16_384

Ready = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `tier` orders the end: the highest is stopped first. `environment` is added to ours.

    `ends` marks a program that may end by itself with exit code 0: a run, not a server.
    """

    name: str
    argv: Sequence[str]
    tier: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = STOP_S
    ends: bool = False


def edgeloop(*arguments: str) -> list[str]:
    """Our own command line, run by this Python."""
    return [sys.executable, "-c", "import sys; from models.dispatch import main; sys.exit(main())", *arguments]


def python_module(name: str, *arguments: str) -> list[str]:
    """One of our own modules as a program, run by this Python."""
    return [sys.executable, "-m", name, *arguments]


def require_space(folder: Path, need: int) -> None:
    """Raises:
    DiskFull: fewer than `need` bytes are free under `folder`, which must exist.
    """
    free = shutil.disk_usage(folder).free
    if free < need:
        raise DiskFull(
            f"{folder} has {free / 1e6:.0f} MB free and {need / 1e6:.0f} MB are needed: make room or choose another "
            "folder with --work"
        )


class Child:
    """One running process."""

    def __init__(self, command: Command, *, log: Path) -> None:
        self.command, self.log = command, log
        argv = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), *command.argv]
        try:
            with log.open("ab") as out:
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **command.environment},
                    start_new_session=True,
                )
        except OSError as fault:
            raise _disk_or(fault, f"{command.name} cannot start: {fault}") from fault

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def last_lines(self, count: int = 1) -> list[str]:
        """The end of the log, empty lines left out."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()][-count:]

    def failure(self) -> ServerError:
        """Why it ended, from its log, in one line."""
        name, lines = self.command.name, self.last_lines(40)
        for line in lines:
            lower = line.lower()
            if "address already in use" in lower or "address in use" in lower:
                return PortInUse(f"{name}: a port it needs is in use ({line[:160]})")
            if "no space left on device" in lower:
                return DiskFull(f"{name}: the disk is full: make room or choose another folder with --work")
        last = lines[-1][:300] if lines else "it printed nothing"
        return ServerDied(f"{name} ended with exit code {self.exit_code}: {last} (log: {self.log})")

    def send(self, number: signal.Signals) -> None:
        """Signal the process alone, if it still runs."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def finish(self, deadline: float) -> int:
        """Wait until `deadline` (monotonic seconds), then kill it with everything it started; its exit code."""
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._kill_session()
            return self._process.wait()
        self._kill_session()
        return code

    def _kill_session(self) -> None:
        """The child leads a session of its own, so its group holds only what it started itself."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def _disk_or(fault: OSError, text: str) -> ServerError:
    if fault.errno == 28:  # ENOSPC
        return DiskFull("the disk is full: make room or choose another folder with --work")
    return ServerError(text)


class Servers:
    """Context manager over all children of a run.

    Args:
        logs: folder of the log files, created if missing.
        sleep, monotonic: replaced in tests.
    """

    def __init__(
        self,
        logs: Path,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs, self._sleep, self._monotonic = logs, sleep, monotonic
        self._children: dict[str, Child] = {}
        self.exit_codes: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def children(self) -> Mapping[str, Child]:
        """Running ones by name, in order of their start."""
        return dict(self._children)

    def start(self, command: Command, *, ready: Ready | None = None, within: float = 30.0) -> Child:
        """Start a process and wait until `ready()` is true.

        Raises:
            ServerError: it cannot start, ended, or is not ready `within` seconds.
            ValueError: the name is taken.
        """
        if command.name in self._children:
            raise ValueError(f"a process named {command.name!r} runs already")
        child = Child(command, log=self._logs / f"{command.name}.log")
        self._children[command.name] = child
        if ready is not None:
            self.wait(ready, what=command.name, within=within)
        return child

    def wait(self, ready: Ready, *, what: str, within: float) -> None:
        """Until `ready()`, while every child lives.

        Raises:
            ServerError: a child ended, or time is up.
        """
        deadline = self._monotonic() + within
        while not ready():
            self.check()
            if self._monotonic() > deadline:
                log = self._logs / f"{what}.log"
                where = f" (log: {log})" if log.exists() else ""
                raise NotReady(f"{what} was not ready within {within:.0f} s{where}")
            self._sleep(POLL_S)

    def check(self) -> None:
        """Raises:
        ServerError: the first child that ended on its own.
        """
        for child in self._children.values():
            if child.exit_code is not None and not (child.command.ends and child.exit_code == 0):
                raise child.failure()

    def stop(self, *names: str) -> None:
        """Stop the named children, or all: tier by tier, the highest first, SIGTERM then SIGKILL; returns when gone."""
        chosen = [child for name, child in self._children.items() if not names or name in names]
        for tier in sorted({child.command.tier for child in chosen}, reverse=True):
            members = [child for child in chosen if child.command.tier == tier]
            for child in members:
                child.send(signal.SIGTERM)
            started = time.monotonic()
            for child in members:
                self.exit_codes[child.command.name] = child.finish(started + child.command.stop_s)
                del self._children[child.command.name]
