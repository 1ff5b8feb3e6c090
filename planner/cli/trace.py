"""``planner trace``: look into a trace, make a synthetic one."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from planner.cli import options as flags
from planner.errors import UsageError
from planner.workload.presets import load_model
from planner.workload.summary import summarize
from planner.workload.synth import KINDS, UniformTrace, write_uniform

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def info(
    trace: Annotated[Path, typer.Argument(metavar="FILE", help="A Parquet trace.")],
    model: flags.Model = None,
    dp: Annotated[
        int, typer.Option("--dp", help="DP ranks that homes are tried with.", min=1)
    ] = 32,
    output_format: flags.Format = "human",
) -> None:
    """Print what a trace holds: tokens, tags, layers, skew, homes, its model."""
    flags.check_format(output_format)
    figures = summarize(trace, dp=dp, model=model)
    if output_format == "json":
        print(json.dumps(figures, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(_headline(figures), markup=False)
    if figures["kind"] == "counts":
        console.print(_workload_table(figures["workloads"]))
    else:
        console.print(_tag_table(figures))
        for line in _token_lines(figures):
            console.print(line, markup=False)
    console.print(_fit_line(figures), markup=False)


@app.command()
def synth(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    tokens: Annotated[int, typer.Option(help="Rows.")] = 200_000,
    experts: Annotated[int | None, typer.Option(help="E; default 64.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="K; default 6.")] = None,
    layers: Annotated[int | None, typer.Option(help="MoE layers; default 6.")] = None,
    first_layer: Annotated[
        int | None, typer.Option(help="Number of the first of them; default 0.", min=0)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Take experts, top-k and layers of this model instead."),
    ] = None,
    sequences: Annotated[
        int, typer.Option(help="Sequences; 0 for 256 tokens each.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same choices.")] = 0,
    output_format: flags.Format = "human",
) -> None:
    """Write a synthetic trace, labelled as one."""
    flags.check_format(output_format)
    if kind not in KINDS:
        raise UsageError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    numbers = tuple(range(first_layer or 0, (first_layer or 0) + _or(layers, 6)))
    if model is not None:
        if any(given is not None for given in (experts, top_k, layers, first_layer)):
            raise UsageError(
                "--model gives experts, top-k and layers: leave out --experts, "
                "--top-k, --layers and --first-layer"
            )
        spec = load_model(model)
        experts, top_k, numbers = spec.experts, spec.top_k, spec.moe_layers
    wanted = UniformTrace(
        tokens=tokens,
        experts=_or(experts, 64),
        top_k=_or(top_k, 6),
        layer_numbers=numbers,
        sequences=sequences,
        seed=seed,
    )
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"-o {output}: must be a file in a folder that exists")
    write_uniform(output, wanted)
    figures = {"file": str(output), "tokens": tokens, "synthetic": kind, "seed": seed}
    if output_format == "json":
        print(json.dumps(figures, indent=2, ensure_ascii=False))
        return
    print(f"{output}: {tokens:,} tokens, synthetic: {kind}, seed {seed}")


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _headline(figures: dict[str, Any]) -> str:
    made = f" (synthetic: {figures['synthetic']})" if figures["synthetic"] else ""
    shape = (
        f"{figures['layers']} MoE layers ({figures['layer_numbers']}) of "
        f"{figures['num_experts']} experts, top-{figures['top_k']}"
    )
    if figures["kind"] == "counts":
        what = f"counts of {len(figures['workloads'])} workloads"
    else:
        what = f"{figures['tokens']:,} tokens in {figures['sequences']:,} sequences"
    return f"{figures['file']}: {what}, {shape}{made}\nrecorded on: {figures['model']}"


def _tag_table(figures: dict[str, Any]) -> Table:
    table = Table(title="tags and phases")
    for column in ("", "tokens", "sequences"):
        table.add_column(column, justify="right" if column else "left")
    for kind in ("tags", "phases"):
        for name, found in figures[kind].items():
            table.add_row(
                f"{kind[:-1]} {name}", f"{found['tokens']:,}", f"{found['sequences']:,}"
            )
    return table


def _workload_table(workloads: list[dict[str, Any]]) -> Table:
    table = Table(title="workloads (expert load max/mean over layers)")
    table.add_column("workload")
    table.add_column("phase")
    for column in ("tokens", "median", "min", "max"):
        table.add_column(column, justify="right")
    for found in workloads:
        table.add_row(
            found["workload"],
            found["phase"] or "-",
            f"{found['tokens']:,.0f}",
            *(f"{found['skew'][name]:.2f}" for name in ("median", "min", "max")),
        )
    return table


def _token_lines(figures: dict[str, Any]) -> list[str]:
    load = figures["skew"]
    homes = ", ".join(
        f"{name} {ratio:.3f}" for name, ratio in figures["homes_max_over_mean"].items()
    )
    return [
        f"expert load max/mean: median {load['median']:.2f} over layers "
        f"({load['min']:.2f} to {load['max']:.2f})",
        f"tokens per home, max/mean over {figures['dp']} DP ranks: {homes}; longest "
        f"sequence {figures['longest_sequence']:,} tokens",
        f"missing: {figures['null_rows']:,} (token, layer) rows, "
        f"{figures['null_ids']:,} ids in all; order of ids: "
        f"{figures['order'] or 'not said'}",
    ]


def _fit_line(figures: dict[str, Any]) -> str:
    compared = figures.get("compared_with")
    if compared is not None:
        differs = "; ".join(compared["differs"])
        return (
            f"model {compared['model']}: {f'differs: {differs}' if differs else 'fits'}"
        )
    if figures["fits"]:
        return f"fits model: {', '.join(figures['fits'])}"
    return "fits no known model: give its moe-model/1 file with --model"
