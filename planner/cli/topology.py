"""``planner topology``: validate, describe and expand cluster files."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from planner.cli import options as flags
from planner.topology.paths import build_routes
from planner.topology.schema import load_json, load_topology, parse_topology
from planner.topology.summary import summary
from planner.topology.writing import topology_text
from planner.units import show_bytes

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write here, not to stdout.")
]


@app.command()
def validate(topology: flags.Topology, output_format: flags.Format = "human") -> None:
    """Check a cluster file: schema, references, bandwidths, memory, routes."""
    flags.check_format(output_format)
    figures = _figures(topology)
    if output_format == "json":
        short = ("name", "gpus", "hosts", "warnings", "assumptions")
        print(
            json.dumps(
                {"valid": True, **{key: figures[key] for key in short}}, indent=2
            )
        )
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold green]valid[/] {_headline(figures)}")
    _sentences(console, "warning", figures["warnings"])


@app.command()
def describe(topology: flags.Topology, output_format: flags.Format = "human") -> None:
    """Print what a cluster is: GPUs, domains, link classes, what is assumed."""
    flags.check_format(output_format)
    figures = _figures(topology)
    if output_format == "json":
        print(json.dumps(figures, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{_headline(figures)}[/]")
    if figures["description"]:
        console.print(figures["description"], markup=False)
    console.print(_inside(figures), markup=False)
    console.print(_link_table(figures["link_classes"]))
    console.print(_routing_line(figures["routing"]), markup=False)
    _sentences(console, "assumed", figures["assumptions"])
    _sentences(console, "down", figures["down"])
    _sentences(console, "warning", figures["warnings"])


@app.command()
def expand(topology: flags.Topology, output: Output = None) -> None:
    """Write the nodes and edges of a generator file as node-link JSON."""
    value, where, name = load_json(topology)
    parse_topology(value, where=where, name=name)
    text = topology_text(value)
    if output is None:
        print(text, end="")
        return
    output.write_text(text, encoding="utf-8")
    count = f"{len(value['nodes'])} nodes, {len(value['edges'])} edges"
    print(f"wrote {output}: {count}")


def _figures(source: str) -> dict[str, Any]:
    topology = load_topology(source)
    return summary(topology, build_routes(topology))


def _headline(figures: dict[str, Any]) -> str:
    domains = figures["domains"]
    sizes = ", ".join(f"{n} of {size} GPUs" for size, n in domains["sizes"].items())
    return (
        f"{figures['name']}: {figures['gpus']} GPUs on {figures['hosts']} hosts, "
        f"{domains['count']} scale-up domains ({sizes}), {figures['rails']} rails"
    )


def _inside(figures: dict[str, Any]) -> str:
    gpus = ", ".join(
        f"{entry['gpus']} × {entry['profile'] or 'GPU'} of "
        f"{show_bytes(entry['memory_bytes'])}"
        for entry in figures["profiles"]
    )
    others = ", ".join(
        f"{count} {kind}" for kind, count in figures["nodes"].items() if kind != "gpu"
    )
    tiers = figures["switches_by_tier"]
    by_tier = ", ".join(f"tier {tier}: {count}" for tier, count in tiers.items())
    return f"{gpus}; {others}" + (f" ({by_tier})" if len(tiers) > 1 else "")


def _link_table(classes: list[dict[str, Any]]) -> Table:
    table = Table(title="links, one direction each", title_justify="left")
    table.add_column("class")
    for column in ("links", "cables", "nominal GB/s", "effective GB/s"):
        table.add_column(column, justify="right")
    for entry in classes:
        table.add_row(
            entry["class"],
            str(entry["links"]),
            str(entry["cables"]),
            f"{entry['nominal_gbs']:g}",
            f"{entry['effective_gbs']:g}",
        )
    return table


def _routing_line(routing: dict[str, Any]) -> str:
    missing = routing["pairs_without_path"]
    asked = [routing["file_policy"], routing["file_endpoint"]]
    wish = " ".join(word for word in asked if word)
    return (
        f"routing {routing['policy']}, shares over Q = {routing['q']}; "
        + (
            f"{missing} GPU pairs without a path"
            if missing
            else "every GPU pair has a path"
        )
        + (f"; the file asks for {wish}" if wish else "")
    )


def _sentences(console: Console, label: str, sentences: list[str]) -> None:
    for sentence in sentences:
        console.print(f"{label}: {sentence}", markup=False)
