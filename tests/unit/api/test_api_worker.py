"""How the planner's errors become problems, and how settings are read."""

import json
from pathlib import Path

import pytest

from api.runner import refusal
from api.schemas import PlanRequest
from api.settings import Settings
from api.worker import problem, solve
from planner.errors import (
    Cause,
    InfeasibleError,
    InputError,
    LimitError,
    ModelError,
    PlannerError,
    Repair,
    ReplayMismatch,
    SolverError,
    TopologyError,
    TraceError,
    UsageError,
    VerificationError,
)


@pytest.mark.parametrize(
    ("error", "status", "kind", "pointer"),
    [
        (UsageError("x"), 400, "usage", "/options"),
        (
            TopologyError("x", where="inline:/edges/3"),
            422,
            "topology",
            "/topology/edges/3",
        ),
        (
            TopologyError("x", where="topology /schema"),
            422,
            "topology",
            "/topology/schema",
        ),
        (
            TraceError("x", where="inline counts /top_k"),
            422,
            "trace",
            "/trace/counts/top_k",
        ),
        (TopologyError("x", where="inline"), 422, "topology", "/topology"),
        (ModelError("x", where="m.json:/top_k"), 422, "model", "/model/top_k"),
        (TraceError("x", where="tiny-moe: column e01"), 422, "trace", "/trace"),
        (TraceError("x", where="/data/tiny-moe.parquet"), 422, "trace", "/trace"),
        (InputError("x"), 422, "input", ""),
        (InfeasibleError("x"), 409, "infeasible", None),
        (LimitError("x"), 504, "limit", None),
        (VerificationError(["x"]), 500, "verification", None),
        (ReplayMismatch(["x"]), 500, "replay-mismatch", None),
        (SolverError("x"), 500, "solver", None),
    ],
)
def test_an_error_of_the_planner_becomes_a_problem_with_its_place(
    error: PlannerError, status: int, kind: str, pointer: str | None
) -> None:
    """Law: status and kind are the class's; the pointer leads into the request."""
    found = problem(error)
    assert (found["status"], found["kind"]) == (status, kind)
    assert found["detail"] == str(error)
    pointers = [item["pointer"] for item in found["errors"]]
    assert pointers == ([] if pointer is None else [pointer])


def test_causes_of_infeasibility_reach_the_client() -> None:
    """Law: names, numbers and repairs of the planner are members of the problem."""
    repair = Repair(what="less", options={"kv_tokens": 5}, leaves=("slots",))
    cause = Cause(name="memory", says="x", numbers={"short": 3}, repairs=(repair,))
    report = json.dumps(problem(InfeasibleError("x", [cause])))
    body = json.loads(refusal(report.encode()).response("/plan").body)
    assert body["causes"] == [
        {
            "name": "memory",
            "says": "x",
            "numbers": {"short": 3},
            "repairs": [
                {"what": "less", "options": {"kv_tokens": 5}, "leaves": ["slots"]}
            ],
        }
    ]
    plain = refusal(json.dumps(problem(LimitError("x"))).encode()).response("/plan")
    assert "causes" not in json.loads(plain.body)


def test_settings_come_from_the_environment() -> None:
    """Law: a variable changes its setting and no other."""
    found = Settings.from_environment(
        {"PLANNER_API_BODY_BYTES": "1000", "PLANNER_API_ANSWER_SECONDS": "60.5"}
    )
    assert found == Settings(body_bytes=1000, answer_seconds=60.5)


@pytest.mark.parametrize(
    "variables",
    [
        {"PLANNER_API_BODY_BYTES": "many"},
        {"PLANNER_API_BODY_BYTES": "0"},
        {"PLANNER_API_CONCURRENT_SOLVES": "-1"},
        {"PLANNER_API_TIME_LIMIT_MAX": "3600"},
        {"PLANNER_API_TIME_LIMIT_MAX": "1"},
        {"PLANNER_API_ANSWER_SECONDS": "nan"},
    ],
)
def test_settings_that_cannot_hold_are_refused(variables: dict[str, str]) -> None:
    """Law: a service with impossible limits does not start."""
    with pytest.raises(ValueError):
        Settings.from_environment(variables)


def test_an_error_of_one_of_several_workloads_points_at_them() -> None:
    """The place in the list is in the detail: a trace has a name, no number."""
    found = problem(TraceError("x", where="inline counts /top_k"), several=True)
    assert found["errors"] == [{"pointer": "/workloads", "detail": "x"}]


def test_one_plan_serves_several_workloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace and counts of one's own, each with its weight and mode."""
    monkeypatch.chdir(tmp_path)
    model = json.loads(solve(_request()))["inputs"]["model"]
    counts = {
        "layers": [1, 2, 3, 4, 5, 6],
        "tokens": [[9, *[1] * 63]] * 6,
        "top_k": 6,
        "phase": "decode",
    }
    several = [
        {"trace": "tiny-moe", "weight": 3, "traffic": "dedup_gpu"},
        {"trace": {"counts": counts}},
    ]
    plan = json.loads(solve(_request(workloads=several)))
    assert plan["inputs"]["model"] == model
    loads = list(plan["workloads"].values())
    assert [load["traffic"] for load in loads] == ["dedup_gpu", "copies"]
    assert [load["weight"] for load in loads] == ["3/4", "1/4"]


def _request(**more: object) -> PlanRequest:
    options = {"time_limit": 1, "strategy": "eplb_global"}
    return PlanRequest.model_validate(
        {"topology": "toy-2x2", "options": options, **more}
    )
