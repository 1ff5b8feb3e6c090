"""The replay without tensors: compiled, chunk by chunk, needs no torch."""

from planner.executor.counter.counting import (
    Counting,
    LayerTransfers,
    count,
    count_stream,
    split_of_layer,
)

__all__ = ["Counting", "LayerTransfers", "count", "count_stream", "split_of_layer"]
