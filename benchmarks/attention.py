"""What attention keeps per token, and what decoding a token costs, kind by kind.

``python -m benchmarks.attention [--kept 512 2048 8192] [--repeats 7]`` runs one layer
of DeepSeek-V2-Lite's width (hidden 2048, 16 heads of 128; latent 512 + 64) in float32
on one thread: multi-head, grouped-query (4 heads of keys and values) and latent
attention in its naive and its absorbed form. It prints the bytes held per token and
the median processor milliseconds of one decoding step behind so many kept tokens.
"""

import argparse
import time
from statistics import median

import torch

from planner.executor.model.attention.grouped import GroupedAttention
from planner.executor.model.attention.latent import LatentAttention
from planner.executor.model.config import GroupedDims, LatentDims
from planner.executor.model.context import KVCache
from planner.executor.stepping import finish

HIDDEN, HEADS, WIDTH = 2048, 16, 128
LATENT = LatentDims(
    heads=HEADS, kv_lora_rank=512, rope_head_dim=64, head_dim=WIDTH, v_head_dim=WIDTH
)


def kinds() -> dict[str, GroupedAttention | LatentAttention]:
    """Return one layer of every kind, with weights of its own."""
    layers: dict[str, GroupedAttention | LatentAttention] = {
        name: GroupedAttention(
            HIDDEN, GroupedDims(heads=HEADS, kv_heads=kv_heads, head_dim=WIDTH), layer=0
        )
        for name, kv_heads in (("multi-head", HEADS), ("grouped, 4 heads", 4))
    }
    for name, absorbed in (("latent, naive", False), ("latent, absorbed", True)):
        layers[name] = LatentAttention(HIDDEN, LATENT, layer=0)
        layers[name].absorbed = absorbed
    return layers


def step(
    layer: GroupedAttention | LatentAttention, cache: KVCache, first: int, count: int
) -> None:
    """Attend with ``count`` new tokens behind ``first`` kept ones."""
    positions_BS = torch.arange(first, first + count)[None]
    mask_BSC = torch.arange(first + count) <= positions_BS[:, :, None]
    finish(
        layer.steps(
            torch.randn(1, count, HIDDEN),
            positions_BS=positions_BS,
            mask_BSC=mask_BSC,
            context=cache,
        )
    )


def measured(
    layer: GroupedAttention | LatentAttention, kept: int, repeats: int
) -> tuple[float, float]:
    """Return bytes per kept token and milliseconds per step behind ``kept`` tokens."""
    cache, took = KVCache(), []
    for first in range(0, kept, 256):
        step(layer, cache, first, min(256, kept - first))
    held = cache.nbytes / kept
    for repeat in range(repeats + 1):
        start = time.process_time()
        step(layer, cache, kept + repeat, 1)
        took.append(time.process_time() - start)
    return held, 1e3 * median(took[1:])


@torch.no_grad()
def main() -> None:
    """Print one row per kind."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kept", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    columns = " | ".join(f"ms behind {kept}" for kept in options.kept)
    print(f"| kind | bytes per token | {columns} |")
    for name, layer in kinds().items():
        rows = [measured(layer, kept, options.repeats) for kept in options.kept]
        times = " | ".join(f"{ms:.2f}" for _, ms in rows)
        print(f"| {name} | {rows[-1][0]:.0f} | {times} |", flush=True)


if __name__ == "__main__":
    main()
