"""Verbs that say why: ``planner explain`` and ``planner diagnose``."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from planner import pipeline
from planner.cli import options as flags
from planner.cli.render_diagnosis import show_diagnosis
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


def diagnose(
    topology: flags.Topology,
    model: flags.Model = None,
    trace: flags.Traces = None,
    phase: flags.Phase = "prefill",
    traffic: flags.Traffic = None,
    selection: flags.Selection = "nearest",
    objective: flags.ObjectiveName = "link_time",
    layers: flags.Layers = "sequential",
    homes: flags.Homes = None,
    redundant: flags.Redundant = "auto",
    layout: flags.Layout = "auto",
    imbalance_cap: flags.Cap = None,
    domain_imbalance_cap: flags.DomainCap = None,
    batch_tokens: flags.BatchTokens = 4096,
    endpoint: flags.Endpoint = None,
    holdout: flags.Holdout = "0.5",
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Solve without each effect, and score.")
    ] = False,
    strategy: flags.Strategy = "auto",
    time_limit: Annotated[
        float, typer.Option(help="Seconds of each solve of --ablate.")
    ] = 10.0,
    threads: flags.Threads = None,
    seed: flags.Seed = 0,
    output_format: flags.Format = "human",
) -> None:
    """Say which of the five effects can lighten links here, and what each gives."""
    flags.check_format(output_format)
    chosen = flags.solve_options(locals())
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    report = pipeline.diagnose(
        topology,
        model=model,
        trace=trace,
        options=chosen,
        ablate=ablate,
        announce=lambda line: stderr.print(line, markup=False),
    )
    if output_format == "json":
        print(json.dumps(pipeline.plain(report), indent=2))
        return
    show_diagnosis(report, Console(highlight=False, width=flags.width()))
