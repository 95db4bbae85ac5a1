"""One seeded plant per module for the pages, a fresh one per test for what changes it; a browser where there is one."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from tests.cloud.dashboard.plant import Plant, build

START_S = 15.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """Plain tracebacks for browser tests: under Playwright's greenlets CPython 3.11 cannot parse source for fine ones
    ("AST constructor recursion depth mismatch"), and one failure would end the whole run."""
    style = item.config.option.tbstyle
    if "chromium" in getattr(item, "fixturenames", ()):
        item.config.option.tbstyle = "native"
    try:
        return (yield)
    finally:
        item.config.option.tbstyle = style


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """A plant that tests only look at."""
    return build(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def browse(shown: Plant) -> Iterator[TestClient]:
    with TestClient(shown.app, follow_redirects=False) as client:
        yield client


@dataclass
class Site:
    """A plant behind a real port, and what the browser complained about."""

    plant: Plant
    url: str
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh plant on a loopback port."""
    plant = build(tmp_path)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(plant.app, log_level="critical", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_S
    while not server.started:
        assert time.monotonic() < deadline, "the web server did not start"
        time.sleep(0.02)
    yield Site(plant, f"http://127.0.0.1:{listening.getsockname()[1]}")
    server.should_exit = server.force_exit = True  # open event streams are not waited for
    thread.join(START_S)
    assert not thread.is_alive(), "the web server did not stop"
    listening.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The machine's own chromium, driven by Playwright, whose event loop must not outlive the module."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on PATH: install it to run the browser tests")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any, site: Site) -> Iterator[Any]:
    """An English tab at 1280 px that writes down every console error and every policy violation."""
    context = chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("console", lambda message: site.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: site.complaints.append(str(error)))
    yield page
    context.close()
