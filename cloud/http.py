"""What every HTTP endpoint shares: errors as problem+json (RFC 9457) and who is asking.

Endpoints take `Services` and `Actor` as dependencies; `cloud.web` puts both in place. A `Problem` raised anywhere in a
request becomes the answer, so services raise it for what the caller did wrong and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse


class Problem(Exception):
    """An answer that tells the caller what to do next.

    Args:
        status: HTTP status code.
        code: stable machine-readable name, snake_case.
        detail: one sentence for a person.
    """

    def __init__(self, status: int, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.extra = status, code, detail, extra

    def response(self) -> JSONResponse:
        body = {"type": f"about:blank#{self.code}", "code": self.code, "status": self.status, "detail": self.detail}
        return JSONResponse({**body, **self.extra}, status_code=self.status, media_type="application/problem+json")


def not_found(what: str, name: str) -> Problem:
    """404 with the thing's name in it."""
    return Problem(404, "not_found", f"There is no {what} {name!r}.")


def _services(request: Request) -> Any:
    return request.app.state.services


def _actor(request: Request) -> str:
    actor = getattr(request.state, "actor", None)
    if actor is None:
        raise Problem(401, "unauthenticated", "Sign in first, or send a bearer token.")
    return str(actor)


Services = Annotated[Any, Depends(_services)]
"""The object built by `cloud.bootstrap`: one attribute per service."""
Actor = Annotated[str, Depends(_actor)]
"""Name of the signed-in person or token. Endpoints that ask for it are closed to everybody else."""
