"""``planner solve`` and ``planner evaluate``: options in, a judged plan out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from planner import pipeline
from planner.cli import options as flags
from planner.cli.progress import progress_to_stderr
from planner.cli.render import show_evaluation, show_manifest
from planner.errors import InfeasibleError, infeasible_data
from planner.manifest import Manifest, manifest_data, pretty_json, write_manifest


def solve(
    topology: flags.Topology,
    model: flags.Model = None,
    trace: flags.Traces = None,
    phase: flags.Phase = "prefill",
    traffic: flags.Traffic = None,
    selection: flags.Selection = "nearest",
    objective: flags.ObjectiveName = "link_time",
    layers: flags.Layers = "sequential",
    combine: flags.Combine = "mean",
    link_classes: flags.LinkClasses = None,
    homes: flags.Homes = None,
    policy: flags.Policy = "uniform",
    redundant: flags.Redundant = "auto",
    layout: flags.Layout = "auto",
    groups: flags.GroupsChoice = "auto",
    routing_groups: flags.RoutingGroups = "free",
    imbalance_cap: flags.Cap = None,
    domain_imbalance_cap: flags.DomainCap = None,
    kv_tokens: flags.KvTokens = None,
    mem_fraction: flags.MemFraction = None,
    batch_tokens: flags.BatchTokens = 4096,
    precision: flags.Precision = None,
    endpoint: flags.Endpoint = None,
    routing: flags.Routing = None,
    message_bytes: flags.MessageBytes = None,
    holdout: flags.Holdout = "0.5",
    plan_for: flags.PlanFor = "seen",
    constraints: flags.Constraints = None,
    previous: flags.Previous = None,
    max_moves: flags.MaxMoves = None,
    strategy: flags.Strategy = "auto",
    time_limit: Annotated[float, typer.Option(help="Seconds to search.")] = 60.0,
    gap: Annotated[float, typer.Option(help="Relative gap that is enough.")] = 0.0,
    threads: flags.Threads = None,
    seed: flags.Seed = 0,
    deterministic: flags.Deterministic = False,
    dump_model: flags.DumpModel = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the manifest here.")
    ] = None,
    output_format: flags.Format = "human",
) -> None:
    """Plan the placement of a model's experts on a cluster."""
    flags.check_format(output_format)
    chosen = flags.solve_options(locals())
    pipeline.check_writable(output)
    pipeline.check_writable(dump_model)
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        manifest = pipeline.solve(
            topology,
            model=model,
            trace=trace,
            options=chosen,
            progress=progress_to_stderr("s" if objective == "link_time" else ""),
            announce=lambda line: stderr.print(line, markup=False),
            base=output.parent if output else Path.cwd(),
            model_file=dump_model,
        )
    except InfeasibleError as error:
        if output_format == "json":
            print(json.dumps(infeasible_data(error), indent=2))
        raise
    if output is not None:
        write_manifest(manifest, output)
    _show(manifest, output_format, {"model": dump_model, "plan": output})


def _show(
    manifest: Manifest, output_format: str, written: Mapping[str, Path | None]
) -> None:
    """Print the plan, and where it and what made it were written."""
    stdout = Console(highlight=False, width=flags.width())
    if output_format == "json":
        print(pretty_json(manifest_data(manifest)))
        return
    show_manifest(manifest, stdout)
    for what, where in written.items():
        if where is not None:
            stdout.print(f"{what} written to {where}", markup=False)


def evaluate(
    topology: flags.Topology,
    plan: Annotated[Path, typer.Option("--plan", help="The plan to score.")],
    trace: flags.Trace = None,
    model: flags.Model = None,
    phase: flags.Phase = "prefill",
    traffic: flags.Traffic = None,
    selection: flags.Selection = "nearest",
    objective: flags.ObjectiveName = "link_time",
    layers: flags.Layers = "sequential",
    link_classes: flags.LinkClasses = None,
    homes: flags.Homes = None,
    layout: flags.Layout = "auto",
    endpoint: flags.Endpoint = None,
    routing: flags.Routing = None,
    routing_draws: Annotated[
        int,
        typer.Option(
            help="Score under this many seeds of ecmp_hash too: median and p99."
        ),
    ] = 0,
    message_bytes: flags.MessageBytes = None,
    holdout: flags.Holdout = "0.5",
    output_format: flags.Format = "human",
) -> None:
    """Score a plan on any trace: its own workload or another."""
    flags.check_format(output_format)
    chosen = flags.solve_options(locals())
    scores = pipeline.evaluate(
        topology,
        plan=plan,
        trace=trace,
        model=model,
        options=chosen,
        routing_draws=routing_draws,
    )
    if output_format == "json":
        print(json.dumps(scores, indent=2))
        return
    show_evaluation(scores, Console(highlight=False, width=flags.width()))
