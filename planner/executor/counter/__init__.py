"""The replay without tensors: compiled, chunk by chunk, needs no torch."""

from planner.executor.counter.chunks import pieces, repeated
from planner.executor.counter.compiling import compile_counter
from planner.executor.counter.counting import (
    Counting,
    LayerTransfers,
    count,
    count_stream,
    split_of_layer,
)

__all__ = [
    "Counting",
    "LayerTransfers",
    "compile_counter",
    "count",
    "count_stream",
    "pieces",
    "repeated",
    "split_of_layer",
]
