"""Is this box fit for the line? A handful of checks, each of which says what to do."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_agent.cameras.registry import camera_kind
from edge_agent.clock import Clock
from edge_agent.identity import BadIdentity, Identity
from edge_agent.settings import AgentSettings
from models.disk import REAL_FS
from models.runtime.cpu import read_processor

TIMEOUT_S = 5.0
EXPIRES_SOON = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(settings: AgentSettings) -> list[Finding]:
    """Every check, in the order in which a box fails. Never raises for what it finds."""
    checks: list[tuple[str, Callable[[AgentSettings], str]]] = [
        ("processor", _processor),
        ("clock", _clock),
        ("identity", _identity),
        ("trust root", _root),
        ("disk", _disk),
        ("cameras", _cameras),
        ("broker", _broker),
        ("repository", _repository),
    ]
    return [_run(what, check, settings) for what, check in checks]


class Unfit(Exception):
    """The check failed; the text says what to do."""


def _run(what: str, check: Callable[[AgentSettings], str], settings: AgentSettings) -> Finding:
    try:
        return Finding(what, True, check(settings))
    except (Unfit, BadIdentity, OSError, ValueError) as fault:
        return Finding(what, False, str(fault))


def _processor(_settings: AgentSettings) -> str:
    found = read_processor()
    if found.int8 == "saturates":
        raise Unfit(f"{found.name}: {found.advice}")
    return f"{found.name}, {found.cores} cores: {found.advice}"


def _clock(_settings: AgentSettings) -> str:
    state = Clock().state()
    if not state.ok:
        raise Unfit("the clock was never set; set it or run NTP")
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, source {state.source}"


def _identity(settings: AgentSettings) -> str:
    section = settings.identity
    identity = Identity.load(edge=settings.agent.edge, key=section.key, certificate=section.certificate)
    left = identity.certificate.not_valid_after_utc - datetime.now(UTC)
    if left < timedelta(0):
        raise Unfit(f"the certificate expired {-left.days} days ago; enrol the box again")
    if left < EXPIRES_SOON:
        raise Unfit(f"the certificate expires in {left.days} days; enrol the box again")
    return f"{identity.edge}, valid for {left.days} days"


def _root(settings: AgentSettings) -> str:
    document = json.loads(settings.release.root.read_bytes())
    if document.get("signed", {}).get("_type") != "root":
        raise Unfit(f"{settings.release.root} is no TUF root; copy the factory's root.json there")
    return f"version {document['signed'].get('version')}"


def _disk(settings: AgentSettings) -> str:
    folder = settings.agent.state_dir
    folder.mkdir(parents=True, exist_ok=True)
    free = REAL_FS.free_bytes(folder)
    if free < settings.spool.min_free_bytes:
        raise Unfit(
            f"{free >> 20} MB free on {folder}, spool.min_free_bytes asks for {settings.spool.min_free_bytes >> 20}"
        )
    return f"{free >> 20} MB free on {folder}"


def _cameras(settings: AgentSettings) -> str:
    for camera in settings.cameras:
        camera_kind(camera.kind)
    return ", ".join(f"{camera.name} ({camera.kind})" for camera in settings.cameras)


def _broker(settings: AgentSettings) -> str:
    address = settings.broker
    with socket.create_connection((address.host, address.port), timeout=TIMEOUT_S) as plain:
        if address.tls is None:
            return f"{address.host}:{address.port} answers, without TLS"
        context = ssl.create_default_context(cafile=str(address.tls.ca))
        context.load_cert_chain(str(address.tls.certificate), str(address.tls.key))
        with context.wrap_socket(plain, server_hostname=address.host) as secured:
            return f"{address.host}:{address.port} answers, {secured.version()}"


def _repository(settings: AgentSettings) -> str:
    url = f"{settings.release.url.rstrip('/')}/metadata/timestamp.json"
    if not url.startswith(("http://", "https://")):
        raise Unfit(f"release.url must be http or https, not {settings.release.url!r}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:  # noqa: S310 - scheme checked above
            document = json.loads(reply.read(1 << 20))
    except urllib.error.URLError as fault:
        raise Unfit(f"{url}: {fault.reason}; is the release server running?") from fault
    return f"timestamp version {document['signed']['version']}, expires {document['signed']['expires']}"
