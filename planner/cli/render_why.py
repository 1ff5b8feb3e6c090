"""What a person reads of reasons: what binds, what easing gains, what is missing."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from planner.errors import InfeasibleError
from planner.explain import LayerBinding
from planner.explain.binding import NEAR, Peak
from planner.explain.relax.judged import Outcome
from planner.pipeline import Explanation
from planner.units import show_bytes


def show_explanation(report: Explanation, console: Console, *, top: int) -> None:
    """Print what binds by class, by layer, the memory row, and every relaxation."""
    bound = "" if report.bound is None else f", bound {_amount(report.bound, report)}"
    console.print(
        f"{report.plan}: {report.objective} {_amount(report.value, report)} on the "
        f"planning part, {report.status}{bound}",
        markup=False,
        soft_wrap=True,
    )
    for workload in report.workloads:
        if len(report.workloads) > 1:
            console.print(f"workload {workload.name}", markup=False)
        console.print(_classes(workload.layers), markup=False, soft_wrap=True)
        console.print(_layers(workload.layers, report, top))
    console.print(_memory(report), markup=False, soft_wrap=True)
    if report.relaxations:
        console.print(_relaxations(report))
        for line in _legend(report):
            console.print(line, markup=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def show_infeasible(error: InfeasibleError, console: Console) -> None:
    """Print every cause with its repairs, the cheapest first."""
    console.print("[bold red]infeasible:[/] ", end="")
    if not error.causes:
        console.print(str(error), markup=False)
        return
    for cause in error.causes:
        console.print(cause.says, markup=False)
        if cause.repairs:
            console.print("  repairs, the cheapest first, each checked again:")
        for repair in cause.repairs:
            left = f" (leaves: {', '.join(repair.leaves)})" if repair.leaves else ""
            console.print(f"  - {repair.what}{left}", markup=False)
        if not cause.repairs:
            console.print("  no repair was found", markup=False)


def _classes(layers: tuple[LayerBinding, ...]) -> str:
    peaks = [peak for layer in layers for peak in layer.peaks]
    if not peaks:
        return "nothing binds: no layer moves or computes anything"
    counts = Counter(peak.link_class for peak in peaks)
    spent: Counter[str] = Counter()
    for peak in peaks:
        spent[peak.link_class] += peak.value  # type: ignore[assignment]
    total = sum(spent.values())
    parts = ", ".join(
        f"{name} in {counts[name]} of {len(peaks)} legs ({spent[name] / total:.0%} of "
        "the objective)"
        for name, _ in spent.most_common()
    )
    return f"binds: {parts}"


def _layers(layers: tuple[LayerBinding, ...], report: Explanation, top: int) -> Table:
    table = Table(title=f"what binds, the {min(top, len(layers))} costliest layers")
    unit = "m" + report.unit if report.unit.startswith("s") else report.unit
    for column in ("layer", f"value ({unit})", "bound", "leg"):
        table.add_column(column, justify="right")
    for column in ("link or GPU that binds", "next", "rows that bind too"):
        table.add_column(column, overflow="fold")
    ranked = sorted(layers, key=lambda layer: -layer.value)
    for layer in ranked[:top]:
        bound = "-" if layer.bound is None else _number(layer.bound, report)
        head = [str(layer.layer), _number(layer.value, report), bound]
        for number, peak in enumerate(layer.peaks):
            cells = head if number == 0 else ["", "", ""]
            rows = _rows(layer) if number == 0 else ""
            table.add_row(*cells, peak.leg, peak.name, _next(peak), rows)
    return table


def _next(peak: Peak) -> str:
    if peak.near > 1:
        return f"{peak.near} within 1 %"
    return f"{peak.spare:.1%} below"


def _rows(layer: LayerBinding) -> str:
    found = [
        f"{cap.name} {cap.reached:.3f} of {cap.cap:g}"
        for cap in layer.caps
        if cap.binds
    ]
    if layer.bound is not None and layer.value <= layer.bound * (1 + NEAR):
        away = max(0.0, layer.value / layer.bound - 1) if layer.bound else 0.0
        found.append(f"bound by {layer.bound_method}, {away:.2%} away")
    found += [
        f"slots (price {price.amount / layer.value:.1%} for one more)"
        for price in layer.prices
        if price.row == "slot" and price.amount > 0
    ]
    return ", ".join(found) or "-"


def _memory(report: Explanation) -> str:
    row = report.memory
    least = f"{row.gpu} has least left, {show_bytes(row.free_bytes)}"
    if not row.grows:
        return f"memory does not bind: a GPU takes no more slots; {least}"
    verdict = (
        "binds: no room for one more slot"
        if row.binds
        else "does not bind: one more slot fits"
    )
    return f"memory {verdict} in every layer ({show_bytes(row.slot_bytes)}); {least}"


def _relaxations(report: Explanation) -> Table:
    table = Table(title="what relaxing is worth: change of the objective")
    table.add_column("if", overflow="fold")
    table.add_column("this plan (exact)", justify="right")
    table.add_column("at best (bound)", justify="right")
    if report.resolve_seconds:
        table.add_column("re-solved (estimate)", justify="right")
    table.add_column("note", overflow="fold")
    for outcome in report.relaxations:
        cells = [outcome.what, _gain(outcome), _most(outcome.most)]
        if report.resolve_seconds:
            cells.append(_most(outcome.estimate))
        table.add_row(*cells, _note(outcome))
    return table


def _gain(outcome: Outcome) -> str:
    return _percent(outcome.gain)


def _most(share: float | None) -> str:
    return "-" if share is None else _percent(share)


def _percent(share: float) -> str:
    """A gain is a fall of the objective."""
    return "0" if abs(share) < 5e-7 else f"{-share:+.2%}"


def _note(outcome: Outcome) -> str:
    changed = "" if outcome.of_plan == "this plan" else f"exact: {outcome.of_plan}"
    said = "solver's bound" if outcome.bound_by == "solver" else ""
    return "; ".join(filter(None, (changed, said, outcome.note)))


def _legend(report: Explanation) -> list[str]:
    lines = [
        "exact: the plan scored again. bound: no plan at all can gain more, by a "
        "certificate checked again unless it is the solver's (-: nobody says)."
    ]
    if report.resolve_seconds:
        lines.append(
            f"estimate: {report.resolve_seconds:g} s of re-solving from the plan, "
            "beyond what as long gains with nothing relaxed."
        )
    return lines


def _amount(value: float, report: Explanation) -> str:
    unit = "m" + report.unit if report.unit.startswith("s") else report.unit
    return f"{_number(value, report)} {unit}"


def _number(value: float, report: Explanation) -> str:
    if report.unit.startswith("s"):
        return f"{value * 1e3:.4g}"
    return f"{value:,.1f}" if value < 1e6 else f"{value:,.0f}"
