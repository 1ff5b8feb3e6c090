"""What a person reads: a result in five seconds, the rest in tables below."""

from typing import Any

from rich.console import Console
from rich.table import Table

from planner.cli.render_rerouting import show_rerouting
from planner.manifest import Manifest
from planner.manifest.schema import (
    Baseline,
    BusiestLink,
    Holdout,
    ObjectiveReport,
)
from planner.pipeline import ReplayReport
from planner.pipeline.replaying import ReplayedPart
from planner.units import show_bytes
from planner.verifier import VerificationReport

EPLB = ("eplb_global", "eplb_hierarchical", "eplb_domains")


def show_manifest(manifest: Manifest, console: Console) -> None:
    """Print the headline, the comparison, the busiest links and the memory."""
    for line in headline(manifest):
        console.print(line, markup=True, soft_wrap=True)
    console.print()
    console.print(_comparison(manifest))
    console.print(_busiest(manifest))
    console.print(_memory_line(manifest), soft_wrap=True)
    for line in context_lines(manifest):
        console.print(line, markup=False, soft_wrap=True)
    for note in manifest.provenance.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def headline(manifest: Manifest) -> list[str]:
    """Return the lines that answer: how much better, how far, what binds."""
    return [_versus_eplb(manifest), _distance(manifest), _winners(manifest)]


def better_eplb(baselines: dict[str, Baseline]) -> tuple[str, ObjectiveReport] | None:
    """Return the EPLB reading with the lowest objective, if any exists."""
    found = [
        (name, baselines[name].objective)
        for name in EPLB
        if name in baselines and baselines[name].objective is not None
    ]
    scored = [(name, report) for name, report in found if report is not None]
    return min(scored, key=lambda item: item[1].value) if scored else None


def unseen_ratio(holdout: Holdout) -> tuple[str, float] | None:
    """Return the better EPLB's name and plan/EPLB on sequences not seen."""
    best = better_eplb(holdout.baselines)
    if best is None or best[1].value == 0:
        return None
    return best[0], holdout.objective.value / best[1].value


def amount(report: ObjectiveReport) -> str:
    """Return a value with its unit, seconds in a readable size."""
    if report.unit == "s":
        return f"{report.value * 1e3:.4g} ms"
    return f"{report.value:,.6g} {report.unit}"


def _versus_eplb(manifest: Manifest) -> str:
    name = manifest.objective.name
    if manifest.holdout is not None:
        compared = unseen_ratio(manifest.holdout)
        if compared is not None:
            eplb, ratio = compared
            return (
                f"[bold]{name} {_change(ratio)}[/] than the better EPLB ({eplb}) on "
                f"{manifest.holdout.tokens:,.0f} unseen tokens: ratio {ratio:.4f}"
            )
    best = better_eplb(manifest.baselines)
    value = manifest.objective.value
    if best is None or best[1].value == 0:
        return f"[bold]{name} {amount(manifest.objective)}[/] (no EPLB to compare with)"
    return (
        f"[bold]{name} {_change(value / best[1].value)}[/] than the better EPLB "
        f"({best[0]}) on the planning part; held-out: {manifest.holdout_reason}"
    )


def _change(ratio: float) -> str:
    return f"{abs(1 - ratio):.1%} {'lower' if ratio <= 1 else 'higher'}"


def _distance(manifest: Manifest) -> str:
    value = amount(manifest.objective)
    if manifest.bound is None or manifest.gap is None:
        return (
            f"{manifest.status}: {value} planned; no lower bound is known for "
            f"{manifest.traffic}"
        )
    return (
        f"{manifest.status}: {value} planned, at most {max(manifest.gap, 0):.2%} above "
        f"the optimum (bound by {manifest.bound.method}, of {manifest.bound.of})"
    )


def _winners(manifest: Manifest) -> str:
    origins = manifest.provenance.layer_strategies
    counts = {name: origins.count(name) for name in dict.fromkeys(origins)}
    parts = ", ".join(f"{name} {count}" for name, count in counts.items())
    return (
        f"layers won by: {parts or manifest.provenance.strategy}; stopped: "
        f"{manifest.termination.reason} after {manifest.provenance.seconds:.1f} s"
    )


def _comparison(manifest: Manifest) -> Table:
    table = Table(title=f"{manifest.objective.name} ({manifest.objective.layers})")
    table.add_column("plan")
    for column in ("planning", "unseen", "max/mean GPU", "max/mean domain"):
        table.add_column(column, justify="right")
    unseen = manifest.holdout
    table.add_row(
        "[bold]this plan[/]",
        amount(manifest.objective),
        amount(unseen.objective) if unseen else "-",
        f"{manifest.imbalance.mean:.3f}",
        f"{manifest.imbalance.domain_mean:.3f}",
    )
    for name, base in manifest.baselines.items():
        if base.objective is None or base.imbalance is None:
            table.add_row(name, f"absent: {base.reason}", "", "", "")
            continue
        other = unseen.baselines[name].objective if unseen else None
        table.add_row(
            name,
            amount(base.objective),
            amount(other) if other else "-",
            f"{base.imbalance.mean:.3f}",
            f"{base.imbalance.domain_mean:.3f}",
        )
    return table


def _busiest(manifest: Manifest) -> Table:
    table = Table(title="busiest link of each class (planning part, worst layer)")
    for column in ("leg", "class", "link"):
        table.add_column(column)
    for column in ("layer", "tokens", "MB", "ms"):
        table.add_column(column, justify="right")
    worst: dict[tuple[str, str], tuple[int, BusiestLink]] = {}
    for layer in manifest.prediction.layers:
        for entry in layer.busiest:
            key = entry.leg, entry.link_class
            if key not in worst or entry.seconds > worst[key][1].seconds:
                worst[key] = layer.layer, entry
    ranked = sorted(worst.values(), key=lambda item: -item[1].seconds)
    for number, entry in ranked[:8]:
        table.add_row(
            entry.leg,
            entry.link_class,
            entry.link,
            str(number),
            f"{entry.tokens:,.1f}",
            f"{entry.bytes / 1e6:,.3f}",
            f"{entry.seconds * 1e3:.4f}",
        )
    return table


def _memory_line(manifest: Manifest) -> str:
    tightest = max(
        manifest.prediction.gpus,
        key=lambda gpu: gpu.memory_bytes / max(1, gpu.memory_limit_bytes),
    )
    return (
        f"memory: {tightest.gpu} is fullest with {tightest.memory_bytes / 1e9:.2f} of "
        f"{tightest.memory_limit_bytes / 1e9:.2f} GB"
    )


def context_lines(manifest: Manifest) -> list[str]:
    """Return what the context of every workload under ``direct`` costs."""
    lines = []
    for name, load in manifest.workloads.items():
        cost = load.context
        if cost is None:
            continue
        fits = (
            "which fits"
            if not cost.missing_bytes
            else f"{show_bytes(cost.missing_bytes)} too much for the fullest"
        )
        lines.append(
            f"context of {name}: attention needs every token's keys and values on all "
            f"{cost.groups} attention groups of an EP set: "
            f"{show_bytes(cost.memory_bytes)} more per GPU, {fits}, and "
            f"{show_bytes(cost.transfer_bytes)} sent for the planned tokens (not in "
            "the objective; nothing where blocks have no attention)"
        )
    return lines


def show_evaluation(scores: dict[str, Any], console: Console) -> None:
    """Print all nine values of each part."""
    console.print(
        f"{scores['plan']}: traffic {scores['traffic']}, selection "
        f"{scores['selection']}, endpoint {scores['endpoint']}, routing "
        f"{scores['routing']}, homes {scores['homes']}",
        markup=False,
        soft_wrap=True,
    )
    for part, found in scores["parts"].items():
        table = Table(title=f"{part} part, {found['tokens']:,.0f} tokens")
        table.add_column("objective")
        for mode in ("sequential", "pipelined", "worst_layer"):
            table.add_column(mode, justify="right")
        for name, modes in found["values"].items():
            row = [
                f"{value * 1e3:.5g} ms" if name == "link_time" else f"{value:,.6g}"
                for value in modes.values()
            ]
            table.add_row(name, *row)
        console.print(table)
        imbalance = found["imbalance"]
        console.print(
            f"max/mean per GPU {imbalance['mean']:.3f} (worst layer "
            f"{imbalance['worst']:.3f}), per domain {imbalance['domain_mean']:.3f} "
            f"(worst {imbalance['domain_worst']:.3f}); "
            f"{found['inter_domain_bytes'] / 1e6:,.1f} MB between domains"
        )
        if hashed := found.get("ecmp_hash"):
            console.print(
                f"link time ({hashed['layers']}) under {hashed['draws']} seeds of "
                f"ecmp_hash: median {hashed['p50_s'] * 1e3:.5g} ms, 99th percentile "
                f"{hashed['p99_s'] * 1e3:.5g} ms"
            )


def show_verification(report: VerificationReport, console: Console) -> None:
    """Print what was compared, and what was left alone."""
    console.print(f"[bold green]verified[/]: {report.comparisons:,} comparisons agree")
    table = Table()
    table.add_column("check")
    table.add_column("comparisons", justify="right")
    for check in report.checks:
        table.add_row(check.name, f"{check.comparisons:,}")
    console.print(table)
    for sentence in report.not_checked:
        console.print(f"not checked: {sentence}", markup=False, soft_wrap=True)


def show_replay(report: ReplayReport, console: Console) -> None:
    """Print what moved and that it was what the plan predicted."""
    how = {
        "local": "torch tensors moved between virtual ranks",
        "distributed": "torch tensors moved between processes, one per GPU",
        "counter": "counted without tensors",
    }[report.executor]
    gating = "by the model's own router" if report.gating == "real" else "as traced"
    on = ", on CUDA" if report.device == "cuda" else ""
    console.print(
        f"[bold green]predicted = moved[/]: {how}{on}, experts chosen {gating}",
        soft_wrap=True,
    )
    if report.precision != "fp32":
        console.print(
            f"rows travel and weights are held in {report.precision}; outputs are "
            "compared with the unsharded float32 model's"
        )
    show_rerouting(report, console)
    table = Table()
    table.add_column("part")
    columns = ("tokens", "transfers", "GPU pairs equal", "link loads equal", "outputs")
    for column in (*columns, "seconds"):
        table.add_column(column, justify="right")
    for part in report.parts:
        error = part.output_error
        table.add_row(
            part.part,
            f"{part.tokens:,}",
            f"{part.transfers:,}",
            f"{part.pairs:,}",
            f"{part.links:,}",
            "-" if error is None else f"within {error:.1e}",
            f"{part.seconds:.1f}",
        )
    console.print(table)
    for part in report.parts:
        _show_held_and_lost(part, console)
        if part.ids_agreeing is not None:
            again = "chose" if report.precision == "fp32" else "would have chosen"
            which = "recorded" if part.rerouted is None else "new"
            console.print(
                f"{part.part}: the router {again} {part.ids_agreeing:.3%} of the "
                f"{which} experts again"
            )
    for note in report.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _show_held_and_lost(part: ReplayedPart, console: Console) -> None:
    """Print how far outputs are from the unsharded model's, and what ranks hold."""
    if part.tolerance is not None:
        console.print(
            f"{part.part}: outputs differ from the unsharded model's by at most "
            f"{part.output_error:.1e} ({part.tolerance.outputs:g} allowed), those "
            f"of routed experts by {part.layer_error:.1e} "
            f"({part.tolerance.layers:g} allowed)",
            soft_wrap=True,
        )
    if part.memory:
        held = ", ".join(
            f"{term.term} {max(term.measured):,} of {term.promised:,}"
            for term in part.memory
        )
        console.print(
            f"{part.part}: bytes held of those promised, fullest GPU: {held}",
            soft_wrap=True,
        )
