"""What may be in a request body, checked before anything else looks at it.

The framework reads bodies of any size, takes ``1e999`` for infinity, keeps the
last of two equal keys and answers 500 when it must echo a NaN. This middleware
stands in front: it reads at most ``body_bytes``, accepts UTF-8 JSON only, and
hands the body on only if every parser would read the same plain document.
"""

import asyncio
import json
import math
import re
from typing import NoReturn

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Problem
from api.settings import Settings

# Every byte is looked at once, also in a string that never ends: possessive parts
# do not backtrack, and the end of the body closes what was left open.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_NUMBER_CHARS = 64
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


class BodyGuard:
    """ASGI middleware: reads and checks the body, then replays it."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in BODY_METHODS:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            _check_headers(request, self._settings)
            raw = await _read(request, self._settings)
            # A large body takes a while to parse: other requests go on meanwhile.
            await asyncio.to_thread(check_json, raw, self._settings)
        except Problem as problem:
            response = problem.response(request.url.path)
            # The rest of a refused body is not read: the connection cannot go on.
            response.headers["connection"] = "close"
            await response(scope, receive, send)
            return
        await self._app(scope, _replay(raw, receive), send)


def check_json(raw: bytes, settings: Settings) -> None:
    """Refuse a body that is not plain JSON.

    Raises
    ------
    Problem
        400 if it is not JSON as every parser reads it (encoding, syntax, NaN,
        infinite numbers, duplicate keys, lone surrogates, depth), 413 if it has
        too many values.
    """
    if sum(raw.count(sign) for sign in (b",", b"[", b"{")) > settings.json_values:
        raise Problem(
            413,
            "body-too-large",
            detail=f"the body has more than {settings.json_values} values",
        )
    _check_depth(raw, settings.json_depth)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"the body is not UTF-8 (byte {error.start})")
    if text.startswith("\ufeff"):
        _refuse("the body starts with a byte order mark; send plain UTF-8")
    try:
        document = json.loads(
            text,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
            object_pairs_hook=_unique,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        _refuse(f"the body is not JSON: {error.msg} ({where})")
    if _ESCAPED_SURROGATE.search(raw):
        _check_strings(document)


def _check_headers(request: Request, settings: Settings) -> None:
    """Refuse other media types, encoded bodies and announced excess."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(
            415,
            "unsupported-media-type",
            detail="send the request as application/json",
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            415,
            "unsupported-media-type",
            detail="send the body without a content encoding",
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > settings.body_bytes:
        raise _too_large(settings)


async def _read(request: Request, settings: Settings) -> bytes:
    """Return the body; what the client announced is not believed."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > settings.body_bytes:
                    raise _too_large(settings)
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(
            408,
            "request-timeout",
            detail=f"the body did not arrive within {settings.body_seconds:g} s",
        ) from None
    return b"".join(chunks)


def _too_large(settings: Settings) -> Problem:
    """Return the problem of a body over the cap."""
    limit = f"{settings.body_bytes} bytes"
    return Problem(413, "body-too-large", detail=f"the body is larger than {limit}")


def _replay(raw: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the body once, then what the server says."""
    waiting = True

    async def replay() -> Message:
        nonlocal waiting
        if waiting:
            waiting = False
            return {"type": "http.request", "body": raw, "more_body": False}
        return await receive()

    return replay


def _check_depth(raw: bytes, limit: int) -> None:
    """Refuse deep nesting before a recursive parser meets it."""
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > limit:
            _refuse(f"the body nests deeper than {limit} levels")


def _integer(text: str) -> int:
    """Return a JSON integer of sane length."""
    _check_number_length(text)
    return int(text)


def _number(text: str) -> float:
    """Return a JSON number that is finite as binary64."""
    _check_number_length(text)
    value = float(text)
    if not math.isfinite(value):
        _refuse(f"the number {text} is beyond the range of binary64")
    return value


def _check_number_length(text: str) -> None:
    """Refuse numbers that nobody measured."""
    if len(text) > _MAX_NUMBER_CHARS:
        _refuse(f"a number has more than {_MAX_NUMBER_CHARS} characters")


def _constant(text: str) -> NoReturn:
    """Refuse ``NaN`` and ``Infinity``, which are not JSON."""
    _refuse(f"{text} is not JSON; every number must be finite")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object whose keys are all different."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            _refuse(f"the key {key[:80]!r} is given twice in one object")
        found[key] = value
    return found


def _check_strings(document: object) -> None:
    """Refuse strings that no UTF-8 text can hold (lone surrogates)."""
    stack = [document]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += [*item, *item.values()]
        elif isinstance(item, list):
            stack += item
        elif isinstance(item, str) and _SURROGATE.search(item):
            _refuse("a string holds a lone surrogate")


def _refuse(detail: str) -> NoReturn:
    """Raise the problem of a body that is not plain JSON."""
    raise Problem(400, "invalid-json", detail=detail)
