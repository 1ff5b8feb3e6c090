"""Traffic ``direct``: placing all layers at once, where tokens walk through them."""

from planner.strategies.flow.strategy import solve_flow

__all__ = ["solve_flow"]
