"""Verbs that say why: ``planner explain``."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from planner import pipeline
from planner.cli import options as flags
from planner.cli.render_why import show_explanation

Plan = Annotated[Path, typer.Argument(metavar="PLAN", help="A manifest moe-plan/1.")]


def explain(
    plan: Plan,
    by: Annotated[
        float, typer.Option(help="Share by which links are made faster.")
    ] = 0.1,
    cap_step: Annotated[
        float, typer.Option(help="By how much an imbalance cap is raised.")
    ] = 0.05,
    resolve: Annotated[
        float, typer.Option(help="Seconds to re-solve each relaxation; 0: none.")
    ] = 0.0,
    top: Annotated[
        int, typer.Option(help="Layers to print, the costliest first.", min=1)
    ] = 8,
    output_format: flags.Format = "human",
) -> None:
    """Say what binds a plan, layer by layer, and what relaxing it would gain."""
    flags.check_format(output_format)
    report = pipeline.explain(plan, by=by, cap_step=cap_step, resolve=resolve)
    if output_format == "json":
        print(json.dumps(pipeline.plain(report), indent=2))
        return
    show_explanation(report, Console(highlight=False, width=flags.width()), top=top)
