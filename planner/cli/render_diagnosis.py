"""What a person reads of a diagnosis: five effects, what each could give and gave."""

from rich.console import Console
from rich.table import Table

from planner.pipeline import Diagnosis
from planner.pipeline.diagnosing import Measured


def show_diagnosis(report: Diagnosis, console: Console) -> None:
    """Print the effects, the baselines, and what the ablation measured."""
    table = Table(title="the five effects through which placement lightens links")
    for column in ("effect", "here", "because", "room, counted"):
        table.add_column(column, overflow="fold")
    for effect in report.effects:
        table.add_row(
            f"({effect.letter}) {effect.name}",
            "yes" if effect.applies else "no",
            effect.because,
            "-" if effect.room is None else effect.room.says,
        )
    console.print(table)
    part = "unseen tokens" if report.part == "holdout" else "the planning part"
    if report.ablation is not None:
        console.print(_measured(report, part))
    found = ", ".join(
        f"{name} {_amount(value, report)}" for name, value in report.baselines.items()
    )
    console.print(
        f"{report.objective} of baselines on {part}: {found}",
        markup=False,
        soft_wrap=True,
    )
    for line in _legend(report):
        console.print(line, markup=False, soft_wrap=True)


def _measured(report: Diagnosis, part: str) -> Table:
    table = Table(title=f"measured by solving, {part}")
    table.add_column("plan")
    table.add_column(report.objective, justify="right")
    table.add_column("change", justify="right")
    table.add_column("best baseline", justify="right")
    table.add_column("note", overflow="fold")
    if report.ablation is None:
        return table
    everything = _amount(report.ablation.value, report)
    noise = f"two seeds differ by {report.ablation.noise:.1%}: less is no difference"
    best = report.ablation.balance.baseline
    baseline = "-" if best is None else _amount(best, report)
    table.add_row("[bold]sees everything[/]", everything, "", baseline, noise)
    for effect in report.effects:
        if effect.blind is not None:
            _add(table, f"({effect.letter}) unseen", effect.blind, report)
    _add(table, "(a)-(e) unseen", report.ablation.balance, report)
    for effect in report.effects:
        if effect.switched is not None:
            words = f"({effect.letter}) {effect.switched.what}"
            _add(table, words, effect.switched, report)
    return table


def _add(table: Table, words: str, found: Measured, report: Diagnosis) -> None:
    value = "-" if found.value is None else _amount(found.value, report)
    worth = "-" if found.worth is None else f"{found.worth:+.1%}"
    best = "-" if found.baseline is None else _amount(found.baseline, report)
    table.add_row(words, value, worth, best, found.note)


def _legend(report: Diagnosis) -> list[str]:
    if report.ablation is None:
        return [
            "room is what could be had at most or by a simple rule; --ablate solves "
            "without each effect and measures"
        ]
    return [
        "unseen: the planner does not know the effect, its plan runs where it is; "
        "(a)-(e): it balances GPUs and sees no link",
        "switched (traffic, homes, redundant): the plan for running that way instead; "
        f"{report.ablation.seconds:g} s of solving each",
    ]


def _amount(value: float, report: Diagnosis) -> str:
    if report.unit.startswith("s"):
        return f"{value * 1e3:.4g} m{report.unit}"
    return f"{value:,.6g} {report.unit}"
