"""Verbs that take a finished plan: verify, show, replay, export."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from planner import pipeline
from planner.cli import options as flags
from planner.cli.render import show_manifest, show_replay, show_verification
from planner.cli.render_selections import show_selections
from planner.errors import UsageError
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
        str,
        typer.Option(
            help="auto, local (torch, all ranks in this process), distributed (a "
            "process per GPU) or counter (no torch)."
        ),
    ] = "auto",
    gating: Annotated[
        str, typer.Option(help="auto, real (the model's router) or forced (the trace).")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="What travels and is held: fp32, bf16 or fp8.")
    ] = "fp32",
    device: Annotated[
        str, typer.Option(help="cpu or cuda: where tensors are moved and computed.")
    ] = "cpu",
    selections: Annotated[
        str | None,
        typer.Option(
            help="nearest,even,weighted or some of them: count the plan under each, "
            "beside each other."
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="With --selections: count this trace instead of the plan's, however "
            "long it is."
        ),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(
            help="Let the router's biases follow the loads first: default, or "
            "rule=prices,step=0.03,target=1.15,bound=1,window=4,steps=100,newcomers=1."
        ),
    ] = None,
    capacity_factor: Annotated[
        float | None,
        typer.Option(
            help="Limit every expert to this times the mean load; the rest is dropped."
        ),
    ] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(
            help="Folder for timeline.json (Chrome trace) and timeline.svg of "
            "--executor distributed."
        ),
    ] = None,
    output_format: flags.Format = "human",
) -> None:
    """Move a trace through the plan and compare with what it predicted."""
    flags.check_format(output_format)
    if selections is not None:
        if executor not in ("auto", "counter") or gating not in ("auto", "forced"):
            raise UsageError(
                "--selections counts the trace's experts without tensors: leave out "
                "--executor and --gating, or take counter and forced"
            )
        if device != "cpu":
            raise UsageError("--selections moves no tensors: leave out --device")
        if balance is not None or capacity_factor is not None or precision != "fp32":
            raise UsageError(
                "--selections counts the trace's own choices: leave out --balance, "
                "--capacity-factor and --precision"
            )
        _compare(plan, selections, part, trace, output_format)
        return
    if trace is not None:
        raise UsageError(
            "--trace has no prediction to be held against: add --selections, or score "
            "the plan on it with planner evaluate"
        )
    report = pipeline.replay(
        plan,
        part=part,
        executor=executor,
        gating=gating,
        precision=precision,
        device=device,
        balance=balance,
        capacity_factor=capacity_factor,
        timeline=timeline,
    )
    if report.rank:
        return  # Rank 0 speaks for all.
    if output_format == "json":
        print(json.dumps(pipeline.plain(report), indent=2))
        return
    show_replay(report, Console(highlight=False))


def _compare(
    plan: Path, selections: str, part: str, trace: Path | None, output_format: str
) -> None:
    """Print the plan's figures under several selections."""
    named = [word.strip() for word in selections.split(",") if word.strip()]
    report = pipeline.compare_selections(plan, named, part=part, trace=trace)
    if output_format == "json":
        print(json.dumps(pipeline.plain(report), indent=2))
        return
    show_selections(report, Console(highlight=False, width=flags.width()))


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
