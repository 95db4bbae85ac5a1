"""One HTTP GET with hard limits: connect, silence and total time, and no redirect.

The total deadline closes the socket from a timer, so it also ends a server that drips its headers. Bytes are only
moved here; what they are worth is decided after verification. Proxies are not used: the release server is the plant's.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

from ota.client.limits import Limits
from ota.errors import TransientError

READ = 256 << 10


class Reply:
    """An answer whose body has not been read yet."""

    def __init__(self, response: HTTPResponse, url: str, deadline: _Deadline) -> None:
        self.status = response.status
        self.etag = response.getheader("ETag")
        self.content_range = response.getheader("Content-Range")
        self.length = _number(response.getheader("Content-Length"))
        self._response = response
        self._url = url
        self._deadline = deadline

    def pieces(self) -> Iterator[bytes]:
        """The body in whatever pieces arrive; may end early, which the caller sees by its length.

        Raises:
            TransientError: the connection broke or the total deadline passed.
        """
        while piece := self._piece():
            yield piece

    def _piece(self) -> bytes:
        with _transient(self._url, self._deadline):
            piece = self._response.read1(READ)
            if not piece and self._deadline.passed:
                raise TimeoutError
            return piece


class Transport:
    """Opens one connection per request, for one TLS context."""

    def __init__(self, limits: Limits, *, context: ssl.SSLContext | None = None) -> None:
        self._limits = limits
        self._context = context
        self.server_time: datetime | None = None
        """The server's own idea of the time, not authenticated: good for telling alarms apart, never for trust."""

    @contextmanager
    def get(self, url: str, *, total_s: float, headers: Mapping[str, str] | None = None) -> Iterator[Reply]:
        """GET `url`; the deadline covers everything up to the end of the ``with`` block.

        Raises:
            TransientError: any fault of network, TLS or HTTP framing, or the total deadline passed.
        """
        connection = self._connection(url)
        deadline = _Deadline(total_s)
        try:
            with _transient(url, deadline):
                deadline.start(connection)
                path = urlsplit(url).path or "/"
                connection.request("GET", path, headers={"Accept-Encoding": "identity", **(headers or {})})
                response = connection.getresponse()
            self._note_time(response.getheader("Date"))
            yield Reply(response, url, deadline)
        finally:
            deadline.cancel()
            connection.close()

    def _connection(self, url: str) -> HTTPConnection:
        parts = urlsplit(url)
        if not parts.hostname or parts.scheme not in ("http", "https"):
            raise TransientError(f"{url} is no http or https address: correct [release] url")
        if parts.scheme == "http":
            return _Plain(parts.hostname, parts.port, limits=self._limits)
        return _Tls(parts.hostname, parts.port, limits=self._limits, context=self._context)

    def _note_time(self, date: str | None) -> None:
        if date is not None:
            with suppress(ValueError):  # a server that cannot tell the time says nothing about ours
                self.server_time = parsedate_to_datetime(date)


class _Plain(HTTPConnection):
    def __init__(self, host: str, port: int | None, *, limits: Limits) -> None:
        super().__init__(host, port, timeout=limits.connect_s)
        self._idle_s = limits.idle_s

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self._idle_s)


class _Tls(HTTPSConnection):
    def __init__(self, host: str, port: int | None, *, limits: Limits, context: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=limits.connect_s, context=context or ssl.create_default_context())
        self._idle_s = limits.idle_s

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self._idle_s)


class _Deadline:
    """Shuts the connection's socket down when the time is over, whatever the reader waits for."""

    def __init__(self, total_s: float) -> None:
        self.total_s = total_s
        self.passed = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(total_s, self._cut)
        self._timer.daemon = True

    def start(self, connection: HTTPConnection) -> None:
        self._timer.start()
        connection.connect()
        self._socket = connection.sock
        if self.passed:
            raise TimeoutError

    def cancel(self) -> None:
        self._timer.cancel()

    def _cut(self) -> None:
        self.passed = True
        if self._socket is not None:
            with suppress(OSError):  # closed already, which is what was wanted
                # The plain call, also below TLS: SSLSocket.shutdown would tear the TLS state from under the reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


@contextmanager
def _transient(url: str, deadline: _Deadline) -> Iterator[None]:
    try:
        yield
    except (OSError, HTTPException) as fault:
        text = f"took longer than {deadline.total_s:g} s" if deadline.passed else f"{type(fault).__name__}: {fault}"
        raise TransientError(f"GET {url}: {text}") from fault


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
