"""The application: middleware, errors and routes put together.

``planner serve`` starts it by the import string ``api.app:create_app``. A new noun
is a new file in ``api/routes`` and one line in ``ROUTERS``.
"""

from fastapi import FastAPI

from api import errors, openapi
from api.body import BodyGuard
from api.routes import examples, health, plans
from api.runner import ProcessRunner, Runner
from api.settings import Settings
from planner import __version__

ROUTERS = (health.router, examples.router, plans.router)


def create_app(
    settings: Settings | None = None, runner: Runner | None = None
) -> FastAPI:
    """Return the service.

    Parameters
    ----------
    settings
        Limits; by default from the environment (``PLANNER_API_*``).
    runner
        Who solves; by default processes of our own.
    """
    settings = settings or Settings.from_environment()
    # The interactive pages would load their scripts from other sites: off.
    app = FastAPI(
        title="MoE placement planner",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.runner = runner or ProcessRunner(settings)
    app.add_middleware(BodyGuard, settings=settings)
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    openapi.install(app)
    return app
