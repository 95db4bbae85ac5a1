"""Children are started, watched and stopped; exactly those that were started, however we end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from simulators.servers.children import Child, Command, Servers, edgeloop, require_space
from simulators.servers.errors import DiskFull, NotReady, PortInUse, ServerDied

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


def python(name: str, code: str, *, tier: int = 0, stop_s: float = 5.0) -> Command:
    return Command(name, [sys.executable, "-c", code], tier=tier, stop_s=stop_s)


def says(servers: Servers, name: str, text: str) -> bool:
    return any(text in line for line in servers.children[name].last_lines(20))


def test_a_child_runs_until_it_is_stopped(servers: Servers) -> None:
    child = servers.start(python("a", SLEEPER), ready=lambda: says(servers, "a", "up"), within=10)
    assert psutil.pid_exists(child.pid)
    servers.stop()
    assert not psutil.pid_exists(child.pid)
    assert servers.exit_codes == {"a": -signal.SIGTERM}
    assert servers.children == {}


def test_a_child_that_ignores_sigterm_is_killed_with_what_it_started(servers: Servers) -> None:
    starts = f"p = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); print(p.pid, flush=True)"
    code = f"import subprocess, sys; {starts}\n"
    servers.start(python("a", code + STUBBORN, stop_s=0.2), ready=lambda: says(servers, "a", "deaf"), within=10)
    pid = next(int(line) for line in servers.children["a"].last_lines(20) if line.isdigit())
    grandchild = psutil.Process(pid)
    servers.stop()
    assert servers.exit_codes["a"] == -signal.SIGKILL
    psutil.wait_procs([grandchild], timeout=5)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_tiers_end_from_the_highest_down(servers: Servers, tmp_path: Path) -> None:
    record = tmp_path / "ends"
    code = (
        "import signal, sys, time\n"
        f"def end(*_):\n    open({str(record)!r}, 'a').write(sys.argv[1] + ' '); time.sleep(0.2); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(60)"
    )
    for name, tier in (("server", 0), ("agent", 3), ("cloud", 1)):
        command = Command(name, [sys.executable, "-c", code, name], tier=tier)
        servers.start(command, ready=lambda name=name: says(servers, name, "up"), within=10)
    servers.stop()
    assert record.read_text().split() == ["agent", "cloud", "server"]
    assert set(servers.exit_codes.values()) == {0}


def test_one_child_can_be_stopped_and_started_again(servers: Servers) -> None:
    servers.start(python("a", SLEEPER))
    other = servers.start(python("b", SLEEPER))
    servers.stop("a")
    assert list(servers.children) == ["b"]
    assert other.exit_code is None
    servers.start(python("a", SLEEPER))
    assert list(servers.children) == ["b", "a"]


def test_a_name_is_used_once(servers: Servers) -> None:
    servers.start(python("a", SLEEPER))
    with pytest.raises(ValueError, match="runs already"):
        servers.start(python("a", SLEEPER))


@pytest.mark.parametrize(
    ("printed", "kind", "text"),
    [
        ("cannot open config", ServerDied, "a ended with exit code 3: cannot open config"),
        ("bind 127.0.0.1:8883: Address already in use", PortInUse, "a port it needs is in use"),
        ("write: No space left on device", DiskFull, "the disk is full"),
    ],
)
def test_a_child_that_ends_is_one_clear_line(servers: Servers, printed: str, kind: type[Exception], text: str) -> None:
    code = f"import sys; print({printed!r}, file=sys.stderr); sys.exit(3)"
    with pytest.raises(kind, match=text) as caught:
        servers.start(python("a", code), ready=lambda: False, within=10)
    assert "\n" not in str(caught.value)


def test_a_program_that_cannot_be_run_says_so(servers: Servers) -> None:
    with pytest.raises(ServerDied, match="No such file or directory"):
        servers.start(Command("a", ["/no/such/program"]), ready=lambda: False, within=10)


def test_a_child_that_never_answers_is_named_with_its_log(servers: Servers) -> None:
    with pytest.raises(NotReady, match=r"a was not ready within 0 s \(log: .*a\.log\)"):
        servers.start(python("a", SLEEPER), ready=lambda: False, within=0.2)


def test_check_finds_the_one_that_died(servers: Servers) -> None:
    servers.start(python("a", SLEEPER))
    servers.start(python("b", "raise SystemExit('gone')"))
    with pytest.raises(ServerDied, match="b ended with exit code 1: gone"):
        servers.wait(lambda: False, what="test", within=10)


def test_a_run_may_end_by_itself_but_not_with_an_error(servers: Servers) -> None:
    servers.start(Command("fine", [sys.executable, "-c", "pass"], ends=True))
    servers.wait(lambda: servers.children["fine"].exit_code is not None, what="fine", within=10)
    servers.check()
    servers.start(Command("broken", [sys.executable, "-c", "raise SystemExit('no data')"], ends=True))
    with pytest.raises(ServerDied, match="no data"):
        servers.wait(lambda: False, what="broken", within=10)


def test_children_stop_when_the_body_fails(tmp_path: Path) -> None:
    def body(servers: Servers) -> None:
        started.append(servers.start(python("a", SLEEPER)))
        raise RuntimeError("body")

    started: list[Child] = []
    with pytest.raises(RuntimeError, match="body"), Servers(tmp_path) as servers:
        body(servers)
    (child,) = started
    assert not psutil.pid_exists(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_children_die_with_their_parent(tmp_path: Path, end: signal.Signals) -> None:
    code = (
        "import signal, time, sys\nfrom pathlib import Path\n"
        "from simulators.servers.children import Command, Servers\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"with Servers(Path({str(tmp_path)!r})) as servers:\n"
        f"    child = servers.start(Command('a', [sys.executable, '-c', {SLEEPER!r}]),\n"
        "        ready=lambda: any('up' in line for line in servers.children['a'].last_lines()), within=20)\n"
        "    print(child.pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    with parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, end)
    parent.wait(10)
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()


def test_too_little_room_is_said_before_anything_starts(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(DiskFull, match="MB are needed: make room or choose another folder"):
        require_space(tmp_path, 1 << 60)


def test_our_own_command_line_runs() -> None:
    done = subprocess.run([*edgeloop("--version")], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("edgeloop ")
