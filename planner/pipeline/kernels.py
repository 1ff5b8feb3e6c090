"""Compile the numba kernels ahead of the first plan; later starts load them."""

from planner.executor.counter import compile_counter
from planner.options import SolveOptions
from planner.pipeline.solving import solve
from planner.traffic.base import TRAFFIC


def compile_kernels() -> None:
    """Plan small clusters with every compiled strategy; what is cached is not redone.

    Takes about a minute of one core the first time and some seconds afterwards.
    """
    compile_counter()
    solve("toy-2x2", options=SolveOptions(strategy="fast"))
    for traffic in TRAFFIC.names():
        strategy = "flow" if TRAFFIC.get(traffic).chained else "search"
        options = SolveOptions(traffic=traffic, strategy=strategy, time_limit=0.2)
        solve("toy-2x2", options=options)
    for selection in ("even", "weighted"):
        loads = SolveOptions(
            objective="gpu_tokens",
            selection=selection,
            traffic="copies",
            redundant="8",
            strategy="balance",
            time_limit=0.2,
        )
        solve("toy-2x2", options=loads)
    free = SolveOptions(
        traffic="copies",
        selection="weighted",
        redundant="8",
        strategy="priced",
        time_limit=0.2,
    )
    solve("dgx-h100-1", options=free)
