"""Problem details for every error (RFC 9457), never a page and never a trace.

Nothing of the client's values is echoed except where a message of the planner
names one, and everything is escaped to ASCII: a body with lone surrogates or NaN
must not turn a 4xx into a 500.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:moe-placement:problem:"
MAX_ERRORS = 50
log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One thing wrong, and where: a JSON pointer into the request body."""

    pointer: str
    detail: str


class Repair(BaseModel):
    """A change after which the check was made again.

    ``options`` are those of the request to change, ``leaves`` the causes that would
    remain; none: the request passes the check.
    """

    what: str
    options: dict[str, Any]
    leaves: list[str]


class Cause(BaseModel):
    """One reason why no plan can exist, with its numbers and its repairs."""

    name: str
    says: str
    numbers: dict[str, Any]
    repairs: list[Repair]


class ProblemDetails(BaseModel):
    """The body of every error (RFC 9457); ``causes`` where it is infeasible."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldError]
    causes: list[Cause] = []


class Problem(Exception):
    """An error that the client is told about.

    Parameters
    ----------
    status
        HTTP status.
    kind
        Last part of the problem's ``type``, stable across versions.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        *,
        detail: str,
        errors: Sequence[FieldError] = (),
        causes: Sequence[Cause] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.errors, self.headers = tuple(errors), dict(headers or {})
        self.causes = tuple(causes)

    def response(self, instance: str) -> Response:
        """Return this problem as an HTTP response about the path ``instance``."""
        body = ProblemDetails(
            type=TYPE_PREFIX + self.kind,
            title=self.kind.replace("-", " ").capitalize(),
            status=self.status,
            detail=self.detail,
            instance=instance,
            errors=list(self.errors[:MAX_ERRORS]),
            causes=list(self.causes),
        )
        left_out = set() if self.causes else {"causes"}
        data = body.model_dump(exclude=left_out)
        text = json.dumps(data, ensure_ascii=True, allow_nan=False)
        return Response(text, self.status, media_type=MEDIA_TYPE, headers=self.headers)


def pointer(parts: Sequence[str | int], body: object, *, missing: bool = False) -> str:
    """Return the JSON pointer of a validation error's location in ``body``.

    Locations name the branches of unions too; those are no places in the body
    and are left out. A ``missing`` key is kept although the body lacks it.
    """
    kept: list[str] = []
    place: Any = body
    for index, part in enumerate(parts):
        last_missing = missing and index == len(parts) - 1
        if _has(place, part):
            place = place[part]
        elif not last_missing:
            continue
        kept.append(str(part).replace("~", "~0").replace("/", "~1"))
    return "".join(f"/{part}" for part in kept)


def _has(place: object, part: str | int) -> bool:
    """Tell whether ``part`` is a key or an index of ``place``."""
    if isinstance(place, dict):
        return part in place
    return isinstance(place, list) and isinstance(part, int) and part < len(place)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, error: Problem) -> Response:
        return error.response(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return invalid_request(error).response(request.url.path)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        return from_http(error, request).response(request.url.path)

    @app.exception_handler(Exception)
    async def on_crash(request: Request, error: Exception) -> Response:
        log.error("unexpected error in %s", request.url.path, exc_info=error)
        return internal_error().response(request.url.path)


def internal_error() -> Problem:
    """Return the problem that says nothing but that it is our fault."""
    return Problem(
        500,
        "internal-error",
        detail="the service failed; its log has the reason",
    )


def invalid_request(error: RequestValidationError) -> Problem:
    """Return the problem of a body that does not fit the schema."""
    found = []
    for item in error.errors()[:MAX_ERRORS]:
        missing = item["type"] == "missing"
        where = pointer(item["loc"][1:], error.body, missing=missing)
        found.append(
            FieldError(pointer=where, detail=item["msg"].removeprefix("Value error, "))
        )
    first = found[0]
    return Problem(
        422,
        "invalid-request",
        detail=f"{first.pointer or 'body'}: {first.detail}",
        errors=found,
    )


def from_http(error: HTTPException, request: Request) -> Problem:
    """Return the problem of an error that the framework raised."""
    phrase = HTTPStatus(error.status_code).phrase
    details = {
        404: "no such resource; GET /openapi.json lists what there is",
        405: f"{request.method} is not allowed here",
    }
    return Problem(
        error.status_code,
        phrase.lower().replace(" ", "-"),
        detail=details.get(error.status_code, phrase),
        headers=error.headers,
    )
