"""Looks at what a running cloud needs and says what is wrong, one finding per part. Changes nothing that stays."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from sqlalchemy.exc import SQLAlchemyError

from cloud.bootstrap import address, open_objects
from cloud.db.migrate import current, head
from cloud.db.session import open_engine
from cloud.objects import StoreError
from cloud.settings import CloudSettings
from models.contracts.base import sha256_hex
from models.link import Tls
from ota.errors import OtaError
from ota.keys import ONLINE_ROLES, load_online
from ota.repository import ReleaseRepository

MIN_FREE = 2 << 30
BROKER_S = 5.0
PROBE = b"edgeloop doctor"
SOON = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Finding:
    """One part and how it is. `detail` says what to do when it is not ok."""

    name: str
    ok: bool
    detail: str


def examine(settings: CloudSettings) -> list[Finding]:
    """Every finding, in the order in which faults should be mended."""
    checks: list[tuple[str, Callable[[CloudSettings], str]]] = [
        ("disk", _disk),
        ("database", _database),
        ("object store", _objects),
        ("broker", _broker),
        ("keys", _keys),
        ("release repository", _repository),
        ("certificates", _certificates),
        ("sign-in", _tokens),
    ]
    return [_finding(name, check, settings) for name, check in checks]


class Wrong(Exception):
    """A check failed; the text says what to do."""


def _finding(name: str, check: Callable[[CloudSettings], str], settings: CloudSettings) -> Finding:
    try:
        return Finding(name, True, check(settings))
    except (Wrong, OSError, StoreError, OtaError, ValueError) as fault:
        return Finding(name, False, str(fault))
    except SQLAlchemyError as fault:
        return Finding(name, False, str(fault).splitlines()[0])


def _disk(settings: CloudSettings) -> str:
    folder = settings.cloud.state_dir
    if not folder.is_dir():
        raise Wrong(f"{folder} does not exist yet: the first `edgeloop cloud run` or `migrate` makes it")
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE:
        raise Wrong(f"{free >> 20} MiB free in {folder}; make room, at least {MIN_FREE >> 20} MiB are wanted")
    return f"{free >> 30} GiB free"


def _database(settings: CloudSettings) -> str:
    engine = open_engine(settings.database_url)
    try:
        found = current(engine)
    finally:
        engine.dispose()
    if found != head():
        raise Wrong(f"revision {found or 'none'} instead of {head()}: run `edgeloop cloud migrate`")
    return f"revision {found}"


def _objects(settings: CloudSettings) -> str:
    store = open_objects(settings)
    try:
        store.ensure_bucket()
        key = "doctor/probe"
        store.put_once(key, PROBE, sha256=sha256_hex(PROBE), content_type="text/plain")
        if store.read(key) != PROBE:
            raise Wrong("the object store gives back other bytes than it was given")
        store.delete(key)
    finally:
        store.close()
    return f"{settings.objects.endpoint} takes, gives back and deletes"


def _broker(settings: CloudSettings) -> str:
    if settings.mqtt is None:
        raise Wrong("no [mqtt] section: this cloud receives nothing from any edge")
    where = address(settings.mqtt)
    broker = f"{where.host}:{where.port}"
    context = _context(where.tls) if where.tls is not None else None
    try:
        with socket.create_connection((where.host, where.port), timeout=BROKER_S) as plain:
            if context is None:
                return f"{broker} answers, without TLS"
            with context.wrap_socket(plain, server_hostname=where.host) as secure:
                return f"{broker} answers, {secure.version()}"
    except ssl.SSLError as fault:
        why = getattr(fault, "verify_message", None) or fault.reason or "no TLS"
        raise Wrong(f"no TLS with broker {broker} ({why}): check mqtt.ca and the broker's certificate") from fault
    except OSError as fault:
        why = fault.strerror or "no answer in time"
        todo = "check that it runs, and mqtt.host and mqtt.port"
        raise Wrong(f"broker {broker} cannot be reached ({why}): {todo}") from fault


def _context(tls: Tls) -> ssl.SSLContext:
    for name, path in (("ca", tls.ca), ("certificate", tls.certificate), ("key", tls.key)):
        try:
            path.read_bytes()  # OpenSSL's own errors do not say which file
        except OSError as fault:
            raise Wrong(f"mqtt.{name} {path} cannot be read ({fault.strerror}): correct the path") from fault
    try:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(str(tls.certificate), str(tls.key))
    except ssl.SSLError as fault:
        raise Wrong(
            f"mqtt.ca {tls.ca}, mqtt.certificate {tls.certificate} and mqtt.key {tls.key} cannot be used together "
            f"({fault.reason or fault}): they must be PEM, and the key that of the certificate"
        ) from fault
    return context


def _keys(settings: CloudSettings) -> str:
    there = [role for role in ONLINE_ROLES if (settings.release.keys / f"{role}.pem").exists()]
    for role in there:
        load_online(settings.release.keys / f"{role}.pem")
    missing = {"channel", "snapshot", "timestamp"} - set(there)
    if missing:
        raise Wrong(f"{settings.release.keys} lacks {', '.join(sorted(missing))}: `edgeloop cloud run` cannot publish")
    return f"{', '.join(there)} can be used"


def _repository(settings: CloudSettings) -> str:
    now = datetime.now(UTC)
    expiries = ReleaseRepository(settings.release.repository, now=lambda: now).expiries()
    gone = sorted(role for role, expires in expiries.items() if expires <= now and role != "timestamp")
    if gone:
        raise Wrong(f"expired: {', '.join(gone)}; sign them anew")
    return f"{len(expiries)} roles, none expired"


def _certificates(settings: CloudSettings) -> str:
    late = [text for text in _expiring(settings) if text]
    if late:
        raise Wrong("; ".join(late))
    return "none expires within 14 days"


def _expiring(settings: CloudSettings) -> Iterator[str]:
    section = settings.mqtt
    for path in (section.ca, section.certificate) if section is not None and section.tls else ():
        if path is None:
            continue
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        if certificate.not_valid_after_utc < datetime.now(UTC) + SOON:
            yield f"{path} ends on {certificate.not_valid_after_utc:%Y-%m-%d}: issue a new one"


def _tokens(settings: CloudSettings) -> str:
    if not settings.web.tokens:
        raise Wrong("nobody can sign in: add a [[web.tokens]] table, `edgeloop cloud token create` prints one")
    return f"{len(settings.web.tokens)} tokens"
