"""Changed choices as a person reads them."""

import io

from rich.console import Console

from planner.cli.render import show_replay
from planner.executor.gating.balancing import Balance
from planner.executor.gating.capacity import Dropped
from planner.executor.gating.rerouting import OutputChange
from planner.pipeline import ReplayReport
from planner.pipeline.replaying import ReplayedPart
from planner.pipeline.rerouting import Change, Loads, ReroutedPart


def shown(change: Change, outputs: OutputChange | None) -> str:
    """The text of a report with one part."""
    loads = [
        Loads(
            expert_max_over_mean=(peak, 1.5),
            gpu_max_over_mean=(1.2, 1.1),
            link_time_s=0.002 * peak,
            busiest_link=f"gpu{peak}",
        )
        for peak in (3.0, 1.25)
    ]
    part = ReplayedPart(
        part="planning", tokens=10, transfers=20, pairs=30, links=40,
        max_relative_error=1e-6, ids_agreeing=None if outputs is None else 1.0,
        seconds=1.0,
        rerouted=ReroutedPart(
            before=loads[0], after=loads[1], choices_kept=0.875, outputs=outputs,
            dropped=Dropped(
                pairs=1234, all_pairs=5000, tokens_touched=900, tokens_lost=7,
                all_tokens=1000,
            ),
        ),
    )  # fmt: skip
    report = ReplayReport(
        plan="p.json", executor="local", gating="real", parts=(part,), notes=(),
        change=change, worst_by_step=(3.0, 2.0, 1.25),
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=160)
    show_replay(report, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_balancing_shows_loads_links_and_outputs() -> None:
    """Law: before and after beside each other, with what it did to the outputs."""
    change = OutputChange(kl=0.0123, perplexity_before=12, perplexity_after=12.5)
    text = shown(Change(balance=Balance()), change)
    for words in (
        "biases followed the loads of the planning part for 3 steps (prices)",
        "greatest load 3.00 of the mean in the first, 1.25 over the last 4",
        "prediction made again",
        "3.000 -> 1.500",
        "6 -> 2.5",
        "gpu3.0",
        "87.50%",
        "nats per token",
        "0.0123",
        "12.000 -> 12.500",
        "100.000% of the new experts again",
    ):
        assert words in text
    assert "dropped" not in text


def test_capacity_counts_what_was_dropped() -> None:
    """Law: pairs and tokens that found no room are said, of how many."""
    text = shown(Change(capacity_factor=1.5), None)
    for words in (
        "every expert took at most 1.5 of the mean load",
        "1,234 of 5,000 (token, expert) pairs dropped",
        "of 1,000 (token, layer) pairs 900 lost a choice, 7 all of them",
    ):
        assert words in text
    assert "KL" not in text
