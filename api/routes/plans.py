"""``POST /plan``: one plan, solved while the client waits."""

from fastapi import APIRouter, Response

from api.deps import RunnerDep, SettingsDep
from api.errors import FieldError, Problem
from api.openapi import problem_responses
from api.schemas import PlanRequest
from api.settings import Settings

router = APIRouter(tags=["plans"])
STATUSES = {
    400: "not plain JSON, or options that do not go together",
    408: "the body did not arrive in time",
    409: "proven infeasible: no plan can exist",
    413: "the body is too large",
    415: "not application/json",
    422: "the request or an input in it breaks a rule",
    429: "too many solves at once; see Retry-After",
    500: "the service failed",
    504: "no plan within the time of an answer",
}


@router.post(
    "/plan",
    response_class=Response,
    responses={
        200: {
            "description": "the plan's manifest (moe-plan/1)",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **problem_responses(STATUSES),
    },
)
async def plan(
    request: PlanRequest, runner: RunnerDep, settings: SettingsDep
) -> Response:
    """Place the experts and answer with the verified plan's manifest."""
    manifest = await runner.solve(with_time_limit(request, settings))
    return Response(manifest, media_type="application/json")


def with_time_limit(request: PlanRequest, settings: Settings) -> PlanRequest:
    """Return the request with a time limit that fits into an answer."""
    wanted = request.options.time_limit or settings.time_limit_default
    if wanted > settings.time_limit_max:
        detail = f"must be at most {settings.time_limit_max:g} seconds here"
        place = "/options/time_limit"
        raise Problem(
            422,
            "invalid-request",
            detail=f"{place}: {detail}",
            errors=[FieldError(pointer=place, detail=detail)],
        )
    options = request.options.model_copy(update={"time_limit": wanted})
    return request.model_copy(update={"options": options})
