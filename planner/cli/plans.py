"""Verbs that take a finished plan: verify, show, replay, export."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from planner import pipeline
from planner.cli import options as flags
from planner.cli.render import show_manifest, show_replay, show_verification
from planner.manifest import manifest_data, pretty_json, read_manifest

Plan = Annotated[Path, typer.Argument(metavar="PLAN", help="A manifest moe-plan/1.")]


def verify(plan: Plan, output_format: flags.Format = "human") -> None:
    """Check every rule and claim of a plan again, independently."""
    flags.check_format(output_format)
    report = pipeline.verify(plan)
    if output_format == "json":
        print(json.dumps(pipeline.plain(report), indent=2))
        return
    show_verification(report, Console(highlight=False))


def show(plan: Plan, output_format: flags.Format = "human") -> None:
    """Print a plan as `planner solve` printed it; its inputs are checked."""
    flags.check_format(output_format)
    manifest = read_manifest(plan)
    pipeline.check_inputs(manifest, plan.parent)
    if output_format == "json":
        print(pretty_json(manifest_data(manifest)))
        return
    show_manifest(manifest, Console(highlight=False))


def replay(
    plan: Plan,
    part: Annotated[str, typer.Option(help="planning, holdout or both.")] = "both",
    executor: Annotated[
        str, typer.Option(help="auto, local (torch) or counter (no torch).")
    ] = "auto",
    gating: Annotated[
        str, typer.Option(help="auto, real (the model's router) or forced (the trace).")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="What travels and is held: fp32, bf16 or fp8.")
    ] = "fp32",
    output_format: flags.Format = "human",
) -> None:
    """Move a trace through the plan and compare with what it predicted."""
    flags.check_format(output_format)
    report = pipeline.replay(
        plan, part=part, executor=executor, gating=gating, precision=precision
    )
    if output_format == "json":
        print(json.dumps(pipeline.plain(report), indent=2))
        return
    show_replay(report, Console(highlight=False))


def export(
    plan: Plan,
    to: Annotated[
        str, typer.Option("--to", help=f"{', '.join(pipeline.available('exporter'))}.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the engine's files.")
    ] = Path(),
) -> None:
    """Write the file an engine loads and print the flags that load it."""
    result = pipeline.export(plan, engine=to, output=output)
    for path in result.files:
        print(path)
    print(result.launch_flags)
    for note in result.notes:
        print(f"note: {note}")
