"""One plan under several selections, as a person reads it."""

from rich.console import Console
from rich.table import Table

from planner.pipeline import SelectionReport

COLUMNS = (
    "transfers",
    "cross-domain",
    "share",
    "link time",
    "link tokens",
    "GPU load",
    "worst",
)


def show_selections(report: SelectionReport, console: Console) -> None:
    """Print a row for each part and selection."""
    console.print(
        "[bold]selections beside each other[/], counted without tensors; time and "
        f"tokens of the busiest link ({report.layers}); GPU load: max/mean of a layer",
        soft_wrap=True,
    )
    table = Table()
    table.add_column("part", overflow="fold")
    table.add_column("selection")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row in report.rows:
        table.add_row(
            row.part,
            row.selection,
            f"{row.transfers:,}",
            f"{row.between_domains:,}",
            f"{row.between_domains_share:.2%}",
            f"{row.link_time_s * 1e3:.5g} ms",
            f"{row.link_tokens:,.6g}",
            f"{row.gpu_load_mean:.3f}",
            f"{row.gpu_load_worst:.3f}",
        )
    console.print(table)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
