"""The service as it runs: a real server, real workers, hostile clients."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
ANSWER_SECONDS = 30.0
pytestmark = pytest.mark.slow


class Server:
    """A running server: its address, its process, a client."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port, self.process = port, process
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_SECONDS + 5
        )

    def send_raw(self, raw: bytes) -> bytes:
        """Send bytes over a bare socket and return the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as wire:
            wire.sendall(raw)
            return wire.recv(65536)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Start ``planner serve`` and stop it as an operator would."""
    port = free_port()
    code = "from planner.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"PLANNER_API_CONCURRENT_SOLVES": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    running = Server(port, process)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            running.client.get("/healthz")
            break
        except httpx.ConnectError:
            assert process.poll() is None, "the server ended at once"
            time.sleep(0.1)
    yield running
    running.client.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def examples(server: Server) -> dict[str, dict[str, object]]:
    """Return the requests that the service itself recommends, by name."""
    found = server.client.get("/examples").json()["examples"]
    return {example["name"]: example["request"] for example in found}


@pytest.mark.parametrize("name", ["smallest", "balanced-domains", "inline"])
def test_every_example_is_planned_within_the_time_of_an_answer(
    name: str, server: Server, examples: dict[str, dict[str, object]]
) -> None:
    """Law: what GET /examples shows, POST /plan answers with a whole manifest."""
    started = time.monotonic()
    response = server.client.post("/plan", json=examples[name])
    assert time.monotonic() - started <= ANSWER_SECONDS
    assert response.status_code == 200, response.text
    manifest = response.json()
    assert manifest["schema"] == "moe-plan/1"
    assert manifest["status"] in {"proven_optimal", "solver_claimed", "feasible"}
    assert manifest["objective"]["value"] > 0
    better = [
        row["objective"]["value"]
        for row in manifest["baselines"].values()
        if row.get("objective") and not row.get("notes")
    ]
    caps = manifest["caps"]
    if caps["gpu"] is None and caps["domain"] is None:
        assert manifest["objective"]["value"] <= min(better) * (1 + 1e-12)
    assert json.dumps(manifest, allow_nan=False)


def test_all_examples_are_tried(examples: dict[str, dict[str, object]]) -> None:
    """Law: no example is left out of the test above."""
    assert set(examples) == {"smallest", "balanced-domains", "inline"}


def test_one_solve_too_many_is_turned_away(
    server: Server, examples: dict[str, dict[str, object]]
) -> None:
    """Law: with one place, of two at once one gets 429; health answers meanwhile."""
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.client.post, "/plan", json=examples["smallest"])
        while server.client.get("/healthz").json()["solving"] == 0:
            assert not first.done()
        second = server.client.post("/plan", json=examples["smallest"])
        assert second.status_code == 429
        assert int(second.headers["retry-after"]) > 0
        assert first.result().status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"model": "no-such-model"}, 422, "/model"),
        ({"trace": "tiny-moe", "model": "mixtral-8x7b"}, 422, "/trace"),
        ({"topology": {}}, 422, "/topology"),
        ({"topology": {"schema": "moe-topology/1", "nodes": []}}, 422, "/topology"),
        ({"options": {"strategy": "no_such_strategy"}}, 400, "/options"),
        ({"options": {"redundant": "0", "layout": "ep=3"}}, 400, "/options"),
        ({"options": {"kv_tokens": 2**39}}, 409, None),
    ],
)
def test_what_the_planner_refuses_comes_back_as_a_problem(
    change: dict[str, object], status: int, pointer: str | None, server: Server
) -> None:
    """Law: the planner's own errors keep their status and name the field."""
    response = server.client.post("/plan", json={"topology": "toy-2x2", **change})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    if pointer is not None:
        assert problem["errors"][0]["pointer"].startswith(pointer)
    assert str(ROOT) not in response.text


HEADERS = b"POST /plan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
RAW = {
    "announces 10 GB": HEADERS + b"Content-Length: 10000000000\r\n\r\n{}",
    "announces a negative length": HEADERS + b"Content-Length: -1\r\n\r\n{}",
    "announces less than it sends": HEADERS + b'Content-Length: 2\r\n\r\n{"a":1}',
    "two lengths": HEADERS + b"Content-Length: 2\r\nContent-Length: 7\r\n\r\n{}",
    "broken chunk": HEADERS + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "endless header": b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_a_client_that_breaks_http_gets_a_4xx(raw: bytes, server: Server) -> None:
    """Law: no broken request is served, and none brings the server down."""
    try:
        answer = server.send_raw(raw)
    except ConnectionError:
        answer = b""
    assert answer == b"" or answer.split(b" ")[1].startswith(b"4")
    assert server.client.get("/healthz").status_code == 200


def test_large_bodies_do_not_grow_the_server(server: Server) -> None:
    """Law: bodies over the cap are refused without being kept."""
    body = b" " * (33 * 2**20)
    headers = {"content-type": "application/json"}
    for _ in range(3):
        try:
            response = server.client.post("/plan", content=body, headers=headers)
            assert response.status_code == 413
        except (httpx.WriteError, httpx.ReadError):
            # The server closes the connection without reading the rest.
            continue
    status = Path(f"/proc/{server.process.pid}/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if "VmRSS" in x)
        assert int(line.split()[1]) < 300_000
