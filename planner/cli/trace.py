"""``planner trace``: look into a trace, make a synthetic one."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer
from rich.console import Console
from rich.table import Table

from planner.cli import options as flags
from planner.errors import UsageError
from planner.workload.presets import load_model
from planner.workload.summary import summarize
from planner.workload.synth import (
    KINDS,
    PRESETS,
    CalibratedTrace,
    UniformTrace,
    write_calibrated,
    write_uniform,
)

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
    tags: Annotated[
        int | None, typer.Option(help="Kinds of text, all but uniform; default 4.")
    ] = None,
    phase: Annotated[str, typer.Option(help="prefill or decode.")] = "prefill",
    order: Annotated[
        str | None,
        typer.Option(help="uniform: sorted (default) or router, best expert first."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same choices.")] = 0,
    output_format: flags.Format = "human",
) -> None:
    """Write a synthetic trace, labelled as one."""
    flags.check_format(output_format)
    if kind not in KINDS:
        raise UsageError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"-o {output}: must be a file in a folder that exists")
    drawn = _Drawn(tokens=tokens, sequences=sequences, seed=seed, phase=phase)
    shape = _Shape(experts=experts, top_k=top_k, layers=layers, first=first_layer)
    if kind in PRESETS:
        shape.refuse_with(model, f"{kind} has the shape of {PRESETS[kind].model}")
        if order is not None:
            raise UsageError(f"{kind} has the order router: leave out --order")
        write_calibrated(
            output, CalibratedTrace(preset=kind, tags=_or(tags, 4), **drawn)
        )
    else:
        if tags is not None:
            raise UsageError("uniform has no tags: leave out --tags")
        made = _uniform(shape, model, drawn)
        write_uniform(output, replace(made, order=order or made.order))
    figures = {"file": str(output), "tokens": tokens, "synthetic": kind, "seed": seed}
    if output_format == "json":
        print(json.dumps(figures, indent=2, ensure_ascii=False))
        return
    print(f"{output}: {tokens:,} tokens, synthetic: {kind}, seed {seed}")


class _Drawn(TypedDict):
    """What every kind of synthetic trace is drawn from."""

    tokens: int
    sequences: int
    seed: int
    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Options that say how large the router is; None where not given."""

    experts: int | None
    top_k: int | None
    layers: int | None
    first: int | None

    def refuse_with(self, model: str | None, why: str) -> None:
        """Refuse every option that something else decides already."""
        given = {
            "--experts": self.experts,
            "--top-k": self.top_k,
            "--layers": self.layers,
            "--first-layer": self.first,
            "--model": model,
        }
        flags_given = [flag for flag, value in given.items() if value is not None]
        if flags_given:
            raise UsageError(f"{why}: leave out {', '.join(flags_given)}")


def _uniform(shape: _Shape, model: str | None, drawn: _Drawn) -> UniformTrace:
    if model is not None:
        shape.refuse_with(None, "--model gives experts, top-k and layers")
        spec = load_model(model)
        return UniformTrace(
            experts=spec.experts,
            top_k=spec.top_k,
            layer_numbers=spec.moe_layers,
            **drawn,
        )
    first = _or(shape.first, 0)
    return UniformTrace(
        experts=_or(shape.experts, 64),
        top_k=_or(shape.top_k, 6),
        layer_numbers=tuple(range(first, first + _or(shape.layers, 6))),
        **drawn,
    )


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
