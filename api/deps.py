"""What the routes need from the application, as dependencies."""

from typing import Annotated

from fastapi import Depends, Request

from api.runner import Runner
from api.settings import Settings


def _runner(request: Request) -> Runner:
    runner: Runner = request.app.state.runner
    return runner


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


RunnerDep = Annotated[Runner, Depends(_runner)]
SettingsDep = Annotated[Settings, Depends(_settings)]
