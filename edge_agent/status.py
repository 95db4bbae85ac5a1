"""A page for the person at the box: what runs, how it is, what stands in the way. Loopback by default, read-only.

``/`` for people, ``/status.json`` for programs, ``/metrics`` in Prometheus text format. Metrics never carry part or
image ids. Standard library only, one short-lived thread per request.
"""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog

Snapshot = Callable[[], Mapping[str, Any]]
_log = structlog.get_logger("status")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:44rem;color:#1a1a1a;padding:0 1rem}"
    "h1{font-size:1.3rem}table{border-collapse:collapse;width:100%}"
    "td{border-bottom:1px solid #ddd;padding:.3rem .6rem;vertical-align:top}td:first-child{color:#666;width:14rem}"
)


class StatusPage:
    """Serves `snapshot()`. `port` 0 takes a free one; `address` says which."""

    def __init__(self, snapshot: Snapshot, *, host: str, port: int) -> None:
        """Raises: OSError: the port is taken."""
        self._server = ThreadingHTTPServer((host, port), _handler(snapshot))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _handler(snapshot: Snapshot) -> type[BaseHTTPRequestHandler]:
    pages: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
        "/": ("text/html; charset=utf-8", as_page),
        "/status.json": ("application/json", lambda values: json.dumps(values, indent=1, default=str)),
        "/metrics": ("text/plain; version=0.0.4; charset=utf-8", as_metrics),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path.split("?")[0])
            if page is None:
                self._answer(404, "text/plain; charset=utf-8", "not here; see / , /status.json and /metrics\n")
                return
            kind, render = page
            try:
                body = render(snapshot())
            except Exception as fault:  # noqa: BLE001 - a request's outermost edge: the page must not end the agent
                _log.error("no status", exc_info=fault)
                self._answer(500, "text/plain; charset=utf-8", "the status could not be read; see the log\n")
            else:
                self._answer(200, kind, body)

        def _answer(self, code: int, kind: str, body: str) -> None:
            data = body.encode()
            self.send_response(code)
            for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests for the status are not worth a log line."""

    return Handler


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to one level, names joined by a dot."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{name}."))
        else:
            result[f"{prefix}{name}"] = value
    return result


def as_page(values: Mapping[str, Any]) -> str:
    """A table of everything."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(_shown(value))}</td></tr>"
        for name, value in flat(values).items()
    )
    name = html.escape(f"{values.get('edge', '')} on line {values.get('line', '')}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5><title>{name}</title>"
        f"<style>{_STYLE}</style><h1>{name}</h1><table>{rows}</table></html>\n"
    )


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def as_metrics(values: Mapping[str, Any]) -> str:
    """Every number as a gauge ``edgeloop_agent_<name>``; cameras become a label."""
    lines = []
    cameras = values.get("cameras", {})
    plain = {name: value for name, value in values.items() if name != "cameras"}
    for name, value in flat(plain).items():
        if isinstance(value, (int, float)):
            lines.append(f"edgeloop_agent_{name.replace('.', '_')} {float(value)}")
    for camera, health in cameras.items():
        for name, value in health.items():
            if isinstance(value, (int, float)):
                lines.append(f'edgeloop_agent_camera_{name}{{camera="{camera}"}} {float(value)}')
        lines.append(f'edgeloop_agent_camera_ok{{camera="{camera}"}} {float(health.get("state") == "ok")}')
    return "\n".join(sorted(lines)) + "\n"
