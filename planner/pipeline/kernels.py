"""Compile the numba kernels ahead of the first plan; later starts load them."""

from planner.options import SolveOptions
from planner.pipeline.solving import solve
from planner.traffic.base import TRAFFIC


def compile_kernels() -> None:
    """Plan a toy cluster in every traffic mode, which compiles what is not cached.

    Takes about 40 s of one core the first time and two seconds afterwards.
    """
    solve("toy-2x2", options=SolveOptions(strategy="fast"))
    for traffic in TRAFFIC.names():
        options = SolveOptions(traffic=traffic, strategy="search", time_limit=0.2)
        solve("toy-2x2", options=options)
