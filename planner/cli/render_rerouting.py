"""Choices changed on purpose, as a person reads what it did."""

from rich.console import Console
from rich.table import Table

from planner.pipeline import ReplayReport


def show_rerouting(report: ReplayReport, console: Console) -> None:
    """Print loads and outputs before and after, and what was dropped."""
    if report.change is None:
        return
    console.print(_what(report), markup=False, soft_wrap=True)
    console.print(_table(report))
    if report.change.capacity_factor is not None:
        for part in report.parts:
            if part.rerouted is not None:
                lost = part.rerouted.dropped
                console.print(
                    f"{part.part}: {lost.pairs:,} of {lost.all_pairs:,} (token, expert)"
                    f" pairs dropped; of {lost.all_tokens:,} (token, layer) pairs "
                    f"{lost.tokens_touched:,} lost a choice, {lost.tokens_lost:,} all "
                    "of them",
                    soft_wrap=True,
                )


def _what(report: ReplayReport) -> str:
    change = report.change
    assert change is not None
    said = []
    if change.balance is not None:
        worst = report.worst_by_step
        said.append(
            f"biases followed the loads of the planning part for {len(worst)} steps "
            f"({change.balance.rule}): greatest load {worst[0]:.2f} of the mean in the "
            f"first, {worst[-1]:.2f} over the last {change.balance.window}"
        )
    if change.capacity_factor is not None:
        said.append(
            f"every expert took at most {change.capacity_factor:g} of the mean load "
            "of a batch"
        )
    return (
        f"choices changed: {'; '.join(said)}. What moved was compared with the "
        "prediction made again for the new choices"
    )


def _table(report: ReplayReport) -> Table:
    table = Table()
    table.add_column("before -> after")
    rows: dict[str, list[str]] = {}

    def put(name: str, text: str) -> None:
        rows.setdefault(name, []).append(text)

    for part in report.parts:
        beside = part.rerouted
        if beside is None:
            continue
        table.add_column(part.part, justify="right")
        old, new = beside.before, beside.after
        for name, before_L, after_L in (
            ("expert load", old.expert_max_over_mean, new.expert_max_over_mean),
            ("GPU load", old.gpu_max_over_mean, new.gpu_max_over_mean),
        ):
            put(
                f"{name}, max/mean, worst layer",
                f"{max(before_L):.3f} -> {max(after_L):.3f}",
            )
            means = [sum(each) / len(each) for each in (before_L, after_L)]
            put(f"{name}, mean layer", f"{means[0]:.3f} -> {means[1]:.3f}")
        put(
            "link time, ms",
            f"{old.link_time_s * 1e3:.4g} -> {new.link_time_s * 1e3:.4g}",
        )
        put("busiest link before", old.busiest_link)
        put("busiest link after", new.busiest_link)
        put("choices kept", f"{beside.choices_kept:.2%}")
        if beside.outputs is not None:
            change = beside.outputs
            put("KL(before || after), nats per token", f"{change.kl:.4f}")
            put(
                "perplexity",
                f"{change.perplexity_before:.3f} -> {change.perplexity_after:.3f}",
            )
    for name, texts in rows.items():
        table.add_row(name, *texts)
    return table
