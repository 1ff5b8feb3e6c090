"""Requests of ``POST /plan``: what fits the schema, and what every other answer is."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.schemas import PlanOptions, PlanRequest
from api.settings import Settings
from planner.options import SolveOptions
from tests.unit.api.conftest import Call, RecordingRunner, assert_problem

Post = Callable[[bytes], httpx.Response]
NAMED = {"topology": "toy-2x2"}
COUNTS = {"layers": [1, 3], "tokens": [[5, 0, 1, 2], [1, 1, 3, 3]], "top_k": 2}


def with_options(**options: object) -> dict[str, object]:
    return {**NAMED, "options": options}


def with_counts(**changes: object) -> dict[str, object]:
    return {**NAMED, "trace": {"counts": {**COUNTS, **changes}}}


REFUSED: dict[str, tuple[object, str]] = {
    "null": (None, ""),
    "a list": ([], ""),
    "a number": (3, ""),
    "a string": ("toy-2x2", ""),
    "nothing": ({}, "/topology"),
    "unknown key": ({**NAMED, "path": "/etc/passwd"}, "/path"),
    "empty key": ({**NAMED, "": 1}, "/"),
    "key with a slash": ({**NAMED, "a/b~c": 1}, "/a~1b~0c"),
    "topology null": ({"topology": None}, "/topology"),
    "topology a number": ({"topology": 7}, "/topology"),
    "topology a list": ({"topology": []}, "/topology"),
    "topology unknown": ({"topology": "dgx-z9000"}, "/topology"),
    "topology empty": ({"topology": ""}, "/topology"),
    "topology very long": ({"topology": "a" * 10_000}, "/topology"),
    "topology with workload": ({"topology": {"workload": {}}}, "/topology"),
    "topology with workload in graph": (
        {"topology": {"graph": {"workload": {"trace": "/etc/passwd"}}}},
        "/topology",
    ),
    "model a number": ({**NAMED, "model": 1}, "/model"),
    "trace and workloads": (
        {**NAMED, "trace": "tiny-moe", "workloads": [{"trace": "tiny-moe"}]},
        "",
    ),
    "no workload": ({**NAMED, "workloads": []}, "/workloads"),
    "a workload without weight": (
        {**NAMED, "workloads": [{"trace": "tiny-moe", "weight": 0}]},
        "/workloads/0/weight",
    ),
    "a workload that is unknown": (
        {**NAMED, "workloads": [{"trace": "qwen"}]},
        "/workloads/0/trace",
    ),
    "trace unknown": ({**NAMED, "trace": "qwen"}, "/trace"),
    "trace with another key": ({**NAMED, "trace": {"file": "x"}}, "/trace/counts"),
    "counts without rows": (with_counts(tokens=[]), "/trace/counts"),
    "counts of another length": (with_counts(tokens=[[1, 2]]), "/trace/counts"),
    "ragged counts": (with_counts(tokens=[[1, 2], [1]]), "/trace/counts"),
    "negative count": (
        with_counts(tokens=[[-1, 2], [1, 1]]),
        "/trace/counts/tokens/0/0",
    ),
    "fractional count": (
        with_counts(tokens=[[1, 2], [1, 1.5]]),
        "/trace/counts/tokens/1/1",
    ),
    "boolean count": (
        with_counts(tokens=[[True, 2], [1, 1]]),
        "/trace/counts/tokens/0/0",
    ),
    "huge count": (
        with_counts(tokens=[[2**60, 2], [1, 1]]),
        "/trace/counts/tokens/0/0",
    ),
    "layers descending": (with_counts(layers=[3, 1]), "/trace/counts"),
    "layers repeated": (with_counts(layers=[1, 1]), "/trace/counts"),
    "top_k too large": (with_counts(top_k=5), "/trace/counts"),
    "top_k zero": (with_counts(top_k=0), "/trace/counts/top_k"),
    "options a list": ({**NAMED, "options": []}, "/options"),
    "unknown option": (with_options(dump_model="model.mps"), "/options/dump_model"),
    "phase draft": (with_options(phase="draft"), "/options/phase"),
    "traffic unknown": (with_options(traffic="magic"), "/options/traffic"),
    "seed a string": (with_options(seed="1"), "/options/seed"),
    "seed a fraction": (with_options(seed=1.5), "/options/seed"),
    "seed a boolean": (with_options(seed=True), "/options/seed"),
    "seed too large": (with_options(seed=2**31), "/options/seed"),
    "gap of one": (with_options(gap=1), "/options/gap"),
    "gap negative": (with_options(gap=-0.1), "/options/gap"),
    "no time": (with_options(time_limit=0), "/options/time_limit"),
    "too much time": (with_options(time_limit=3600), "/options/time_limit"),
    "cap of words": (with_options(imbalance_cap="low"), "/options/imbalance_cap"),
    "redundant negative": (with_options(redundant=-1), "/options/redundant"),
    "strategy a path": (with_options(strategy="../milp"), "/options/strategy"),
    "layout a command": (with_options(layout="tp=1;ls"), "/options/layout"),
    "message bytes of one": (with_options(message_bytes=[1]), "/options/message_bytes"),
    "holdout above the scale": (with_options(holdout="7"), "/options/holdout"),
    "link class with spaces": (
        with_options(link_classes=["a b"]),
        "/options/link_classes/0",
    ),
}


@pytest.mark.parametrize(("body", "pointer"), REFUSED.values(), ids=REFUSED)
def test_a_request_that_does_not_fit_is_a_422_with_a_pointer(
    body: object, pointer: str, post: Post, runner: RecordingRunner
) -> None:
    """Law: every misfit names its place in the body, and nothing is solved."""
    problem = assert_problem(post(json.dumps(body).encode()), 422)
    assert pointer in {item["pointer"] for item in problem["errors"]}
    assert not runner.requests


PATHS = [
    "../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "/proc/self/environ",
    "./toy-2x2",
    "toy-2x2.json",
    "topologies/toy-2x2",
    "toy-2x2\0",
    "toy-2x2\n",
    "..\\..\\windows\\win.ini",
    "~/.ssh/id_rsa",
    "file:///etc/passwd",
    "http://127.0.0.1:1/x",
    "%2e%2e%2fetc%2fpasswd",
    "\uff0e\uff0e/etc/passwd",
]


# A model name may hold dots, as "qwen2.5" does; the worker finds no such file.
FIELDS = [
    (field, name)
    for field in ("topology", "model", "trace")
    for name in PATHS
    if (field, name) != ("model", "toy-2x2.json")
]


@pytest.mark.parametrize(("field", "name"), FIELDS)
def test_no_path_and_no_url_is_a_name(
    field: str, name: str, post: Post, runner: RecordingRunner
) -> None:
    """Law: what could name a file or a place on a network is refused unread."""
    body = {**NAMED, field: name}
    problem = assert_problem(post(json.dumps(body).encode()), 422)
    assert problem["errors"][0]["pointer"] == f"/{field}"
    assert "root:" not in json.dumps(problem)
    assert not runner.requests


def test_options_carry_the_names_and_defaults_of_the_planner() -> None:
    """Law: REST and command line take the same options with the same defaults."""
    ours = {name: field.default for name, field in PlanOptions.model_fields.items()}
    theirs = {field.name: field.default for field in dataclasses.fields(SolveOptions)}
    assert ours.pop("time_limit") is None
    assert theirs.pop("time_limit") == 60.0
    assert ours == theirs


def test_every_option_reaches_the_planner() -> None:
    """Law: what the request says is what the planner is given."""
    options = {
        "phase": "decode",
        "traffic": "copies",
        "link_classes": ["ib:nic>switch0"],
        "message_bytes": [100, 200],
        "imbalance_cap": 1.05,
        "domain_imbalance_cap": "1.02x",
        "redundant": 8,
        "holdout": "0.3:salt",
        "time_limit": 3,
    }
    request = PlanRequest.model_validate_json(json.dumps(with_options(**options)))
    given = request.solve_options()
    assert given.phase == "decode"
    assert given.link_classes == ("ib:nic>switch0",)
    assert given.message_bytes == (100, 200)
    assert given.imbalance_cap == "1.05"
    assert given.domain_imbalance_cap == "1.02x"
    assert given.redundant == "8"
    assert given.holdout == "0.3:salt"
    assert given.time_limit == 3


@pytest.mark.parametrize(
    ("options", "phase"), [({}, "decode"), ({"phase": "prefill"}, "prefill")]
)
def test_counts_bring_their_own_phase_unless_one_is_asked(
    options: dict[str, str], phase: str
) -> None:
    """Law: an unasked phase is the counts' own."""
    body = {**with_counts(), "options": options}
    request = PlanRequest.model_validate_json(json.dumps(body))
    assert request.solve_options().phase == phase


def test_a_request_without_time_limit_gets_the_service_default(
    post: Post, runner: RecordingRunner
) -> None:
    """Law: a solve on the service always has a limit that fits an answer."""
    assert post(json.dumps(NAMED).encode()).status_code == 200
    assert runner.requests[0].options.time_limit == Settings().time_limit_default


def test_an_inline_topology_reaches_the_planner_as_it_was_sent(
    post: Post, runner: RecordingRunner
) -> None:
    """Law: numbers of a topology are not rounded on their way."""
    topology = {"edges": [{"bandwidth_gbs": 0.1}, {"bandwidth_gbs": 10**15}], "x": None}
    assert post(json.dumps({"topology": topology}).encode()).status_code == 200
    sent_on = json.loads(runner.requests[0].model_dump_json(exclude_unset=True))
    assert sent_on["topology"] == topology


def test_examples_are_requests_that_fit(call: Call, post: Post) -> None:
    """Law: every example is accepted as it stands."""
    examples = call("GET", "/examples").json()["examples"]
    assert len(examples) >= 3
    for example in examples:
        assert post(json.dumps(example["request"]).encode()).status_code == 200


def test_health_tells_version_and_load(call: Call) -> None:
    """Law: health needs no solve and names the version."""
    health = call("GET", "/healthz").json()
    assert health["status"] == "ok"
    assert health["version"]
    assert health["solving"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/docs", 404),
        ("GET", "/redoc", 404),
        ("GET", "/plan/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/plan", 405),
        ("DELETE", "/plan", 405),
        ("PATCH", "/healthz", 415),
    ],
)
def test_errors_of_the_framework_are_problems_too(
    method: str, path: str, status: int, call: Call
) -> None:
    """Law: 404 and 405 look like every other error."""
    response = call(method, path)
    assert_problem(response, status)
    if status == 405:
        assert response.headers["allow"]


class BrokenRunner(RecordingRunner):
    """Fails in a way nobody foresaw."""

    async def solve(self, request: PlanRequest) -> bytes:
        raise RuntimeError("secret of the house")


@pytest.mark.parametrize("runner", [BrokenRunner()])
def test_an_unforeseen_failure_tells_no_secrets(post: Post) -> None:
    """Law: a 500 is a problem and shows nothing of the inside."""
    response = post(json.dumps(NAMED).encode())
    assert_problem(response, 500)
    assert "secret" not in response.text


def test_openapi_describes_the_request_and_the_problems(call: Call) -> None:
    """Law: the published schema forbids unknown keys and loads nothing."""
    document = call("GET", "/openapi.json").json()
    operation = document["paths"]["/plan"]["post"]
    schemas = document["components"]["schemas"]
    assert schemas["PlanRequest"]["additionalProperties"] is False
    assert schemas["PlanOptions"]["additionalProperties"] is False
    for status in ("400", "409", "413", "415", "422", "429", "500", "504"):
        content = operation["responses"][status]["content"]
        assert set(content) == {"application/problem+json"}


def test_the_service_itself_loads_no_solver_and_no_tensors() -> None:
    """Law: the server process stays small; only workers load the planner's core."""
    code = (
        "import sys, api.app; api.app.create_app(); "
        "heavy = ('ortools', 'torch', 'numba', 'pyarrow'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
    )
    assert run.stdout.strip() == "[]"
