"""`edgeloop ota` as a process of its own: start-up, the release server's life, imports."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time

import httpx

from tests.ota.kit import Plant

MAIN = [sys.executable, "-c", "import sys; from models.dispatch import main; sys.exit(main())", "ota"]


def test_the_server_serves_logs_json_and_stops_on_sigterm(plant: Plant) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*MAIN, "serve", "--repository", str(plant.folder), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert _answer(port) == 200
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert all("event" in json.loads(line) for line in log.splitlines())


def test_help_loads_no_signing_and_no_network_code() -> None:
    code = (
        "import sys; from ota.cli import app\n"
        "heavy = {'httpx', 'tuf', 'starlette', 'uvicorn', 'cryptography', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_box_loads_no_signing_half() -> None:
    code = (
        "import sys, ota.client\n"
        "heavy = {'ota.repository', 'ota.keys', 'ota.publish', 'ota.console', 'httpx', 'starlette', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _answer(port: int) -> int:
    deadline = time.monotonic() + 30
    while True:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health").status_code
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
