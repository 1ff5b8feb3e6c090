"""The flags of design §8, declared once and shared by the verbs."""

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from planner import pipeline
from planner.errors import UsageError
from planner.options import SolveOptions

Topology = Annotated[
    str, typer.Argument(metavar="TOPOLOGY", help="A bundled name or a topology file.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="A preset or a model file; default: fits the trace."),
]
Trace = Annotated[
    str | None,
    typer.Option("--trace", help=r"FILE\[#WORKLOAD]; default: the bundled tiny-moe."),
]
Traces = Annotated[
    list[str] | None,
    typer.Option(
        "--trace",
        help=r"FILE\[#WORKLOAD][:WEIGHT[:MODE[:PHASE]]], repeated for several "
        "workloads; default: the bundled tiny-moe.",
    ),
]
PlanFor = Annotated[
    str,
    typer.Option(
        help="The tokens seen, or unseen ones that they are a sample of (search)."
    ),
]
Combine = Annotated[
    str, typer.Option(help="Several workloads: their weighted mean, or the worst.")
]
Phase = Annotated[str, typer.Option(help="prefill (dedup_domain) or decode (copies).")]
Traffic = Annotated[
    str | None, typer.Option(help="copies, dedup_gpu, dedup_domain or direct.")
]
Selection = Annotated[str, typer.Option(help="nearest, even or weighted.")]
ObjectiveName = Annotated[
    str, typer.Option("--objective", help="link_time, link_tokens or gpu_tokens.")
]
Layers = Annotated[
    str, typer.Option(help="sequential or worst_layer; pipelined is only reported.")
]
LinkClasses = Annotated[
    list[str] | None,
    typer.Option("--link-classes", help="Scope of link_tokens; repeat for several."),
]
Homes = Annotated[
    str | None, typer.Option(help="trace, by_token, round_robin, balanced or by_tag.")
]
Policy = Annotated[
    str,
    typer.Option(
        help="uniform, free (layers share memory), one_expert_per_gpu or "
        "one_expert_per_gpu_total."
    ),
]
Redundant = Annotated[
    str,
    typer.Option(
        help="auto (the fewest, then one more per GPU while it gains 1 % and memory "
        "allows), or a number of extra slots."
    ),
]
Layout = Annotated[str, typer.Option(help="auto, or tp=T[,dp=D][,ep=N].")]
GroupsChoice = Annotated[
    str,
    typer.Option(
        "--groups", help="auto, or placed: DP ranks placed with experts (by_tag)."
    ),
]
RoutingGroups = Annotated[
    str,
    typer.Option(
        help="free, or nest: a group's copies in one domain (gpu_tokens only)."
    ),
]
Cap = Annotated[
    str | None,
    typer.Option(
        "--imbalance-cap",
        help="Most max/mean per GPU and layer; 1.02x: times the lowest baseline's.",
    ),
]
DomainCap = Annotated[
    str | None,
    typer.Option(
        "--domain-imbalance-cap",
        help="Most max/mean per domain and layer, or 1.02x likewise.",
    ),
]
KvTokens = Annotated[
    int | None, typer.Option("--kv-tokens", help="KV tokens per DP rank (65536).")
]
MemFraction = Annotated[
    float | None,
    typer.Option("--mem-fraction", help="Share of GPU memory to fill; KV the rest."),
]
BatchTokens = Annotated[int, typer.Option(help="Tokens per DP rank in buffers.")]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16, fp16 or fp8.")]
Endpoint = Annotated[str | None, typer.Option(help="local_nic, pxn or dest_forward.")]
Routing = Annotated[
    str | None,
    typer.Option(
        help="ecmp_fractional, dmodk, ecmp_hash(SEED[,FLOWS]) or explicit "
        "(graph.routing.tables)."
    ),
]
MessageBytes = Annotated[
    str | None, typer.Option("--message-bytes", help="Dispatch,combine bytes: D,C.")
]
Constraints = Annotated[
    Path | None,
    typer.Option(help="JSON or TOML file: pins, forbidden, apart."),
]
Previous = Annotated[
    Path | None, typer.Option(help="An earlier plan, to count moved experts from.")
]
MaxMoves = Annotated[
    int | None,
    typer.Option("--max-moves", help="Most experts that move from --previous."),
]
Strategy = Annotated[
    str, typer.Option(help=f"One of: {', '.join(pipeline.available('strategy'))}.")
]
Threads = Annotated[int | None, typer.Option(help="Default: all cores.")]
Seed = Annotated[int, typer.Option(help="Seed of the search.")]
Holdout = Annotated[str, typer.Option(help="Share of unseen sequences: F[:SALT].")]
Format = Annotated[str, typer.Option("--format", help="human or json.")]
DumpModel = Annotated[
    Path | None,
    typer.Option(
        "--dump-model",
        metavar="FILE.mps",
        help="Write the linear model of all layers for other solvers (copies only).",
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Count work instead of seconds: the same manifest, byte for byte.",
    ),
]


def message_bytes(text: str | None) -> tuple[int, int] | None:
    """Parse ``D,C``."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--message-bytes {text!r} is not D,C in whole bytes")
    return int(parts[0]), int(parts[1])


READ: dict[str, Callable[[Any], Any]] = {
    "link_classes": lambda names: tuple(names) or None,
    "message_bytes": message_bytes,
    "constraints": pipeline.read_constraints,
    "previous": pipeline.read_previous,
}
"""How what was given becomes an option, where it is not the option itself."""


def solve_options(given: Mapping[str, Any]) -> SolveOptions:
    """Return the options among a verb's arguments, which have the same names."""
    names = [field.name for field in fields(SolveOptions) if field.name in given]
    values = {name: given[name] for name in names}
    for name, read in READ.items():
        if values.get(name) is not None:
            values[name] = read(values[name])
    return SolveOptions(**values)


def check_format(text: str) -> str:
    """Return ``human`` or ``json``."""
    if text not in ("human", "json"):
        raise UsageError(f"--format {text!r} is neither human nor json")
    return text


def width() -> int | None:
    """Tables keep their columns when the output is piped or redirected."""
    return None if os.isatty(1) else 110
