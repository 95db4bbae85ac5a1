"""Presigned PUT of one whole image, the second transport. What it returns is no receipt; only `stored` is."""

from __future__ import annotations

from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, Request

from models.contracts.uplink import Put

PutObject = Callable[[Put, bytes, float], None]


class PutFailed(OSError):
    """The store did not take it; ask for a new order."""


def put_object(order: Put, image: bytes, timeout: float) -> None:
    """PUT `image` once, over http or https only; redirects, proxies and other schemes are not followed.

    Raises:
        OSError: no connection, a time-out, or any status but 2xx.
    """
    if not order.url.startswith(("https://", "http://")):
        raise PutFailed("only http and https addresses are used")
    request = Request(order.url, data=image, headers=dict(order.headers), method="PUT")  # noqa: S310 - scheme checked
    opener = OpenerDirector()
    opener.add_handler(HTTPHandler())
    opener.add_handler(HTTPSHandler())
    try:
        with opener.open(request, timeout=timeout) as answer:
            status = int(answer.status)
    except (HTTPError, ValueError) as fault:
        raise PutFailed(f"PUT: {fault}") from fault
    if not 200 <= status < 300:
        raise PutFailed(f"PUT: HTTP {status}")
