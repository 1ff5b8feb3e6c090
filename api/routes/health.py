"""``GET /healthz``: is the service up, and how busy is it."""

from fastapi import APIRouter

from api.deps import RunnerDep, SettingsDep
from api.schemas import Health
from planner import __version__

router = APIRouter(tags=["service"])


@router.get("/healthz")
async def health(runner: RunnerDep, settings: SettingsDep) -> Health:
    """Say that the service is up, its version, and how many solves run."""
    return Health(
        status="ok",
        version=__version__,
        solving=runner.solving,
        capacity=settings.concurrent_solves,
    )
