"""A client that calls the application in process, and a runner that only records."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from api.app import create_app
from api.runner import Runner
from api.schemas import PlanRequest
from api.settings import Settings

Call = Callable[..., httpx.Response]


class RecordingRunner:
    """Answers every request with the same manifest and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[PlanRequest] = []
        self.solving = 0

    async def solve(self, request: PlanRequest) -> bytes:
        self.requests.append(request)
        return b'{"schema": "moe-plan/1"}'


@pytest.fixture
def runner() -> RecordingRunner:
    return RecordingRunner()


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def call(runner: Runner, settings: Settings) -> Call:
    """Return ``call(method, path, **httpx arguments)`` against a fresh application."""
    app = create_app(settings, runner)

    def send(method: str, path: str, **arguments: object) -> httpx.Response:
        async def one() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://service"
            ) as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(one())

    return send


@pytest.fixture
def post(call: Call) -> Callable[[bytes], httpx.Response]:
    """Return ``post(raw)``: the bytes sent to ``POST /plan`` as JSON."""

    def send(raw: bytes) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return call("POST", "/plan", content=raw, headers=headers)

    return send


def assert_problem(response: httpx.Response, *statuses: int) -> dict[str, object]:
    """Check that a response is a problem with one of these statuses; return it."""
    assert response.status_code in statuses, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = json.loads(response.content)
    assert problem["status"] == response.status_code
    assert problem["type"].startswith("urn:moe-placement:problem:")
    assert problem["title"] and problem["detail"] and "instance" in problem
    for item in problem["errors"]:
        assert item["pointer"] == "" or item["pointer"].startswith("/")
    return problem


async def chunks(raw: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield the bytes in pieces, as a chunked request sends them."""
    for start in range(0, len(raw), size):
        yield raw[start : start + size]
