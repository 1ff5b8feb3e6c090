"""How fast the replay without tensors counts, and how much memory a long trace takes.

``python -m benchmarks.counter`` draws 100,000 tokens of 58 layers that choose 8 of 256
experts (skewed, a seed), on 4 hosts of 8 GPUs with 32 redundant copies, and prints for
every mode and selection the (token, layer) pairs counted per second of the processor,
warm, with one thread, beside those of the verifier's NumPy count of the same
tokens, whose counts must be equal.

``--stream`` sends the 58-layer trace 100 times through the counter: 10 million tokens,
whose ordinals go on. It prints seconds and the largest resident memory of the process,
then compares: under ``nearest`` with 100 times one pass, otherwise the first two
repetitions with the verifier's count of them.

``--file`` writes the trace so often into one Parquet file (4.6 GB; it is removed) and
counts it as ``planner replay --trace`` does; the counts must be those of ``--stream``.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from planner.executor.counter import Counting, LayerTransfers, repeated
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.witness.selection import chosen_ranks
from planner.witness.transfers import both_legs, gpu_pairs, homeward
from planner.workload.homes import running_index
from planner.workload.parts import TokenPart
from planner.workload.presets import load_model
from planner.workload.streaming import TokenStream

EXPERTS, TOP_K, DOMAIN = 256, 8, 8
MODES = ("copies", "dedup_gpu", "dedup_domain", "direct")
SELECTIONS = ("nearest", "even", "weighted")
DRAWN = 6
"""Layers drawn anew; further ones are these with experts renamed."""


def draw(tokens: int, layers: int, gpus: int, seed: int) -> TokenPart:
    """Return tokens with skewed choices, homes by row."""
    rng = np.random.default_rng(seed)
    experts_LTK = np.empty((layers, tokens, TOP_K), dtype=np.int16)
    for layer in range(min(layers, DRAWN)):
        popularity = rng.normal(0, 0.7, EXPERTS)
        for begin in range(0, tokens, 5000):
            noise = rng.gumbel(size=(min(5000, tokens - begin), EXPERTS))
            best = np.argpartition(-(popularity + noise), TOP_K, axis=1)
            experts_LTK[layer, begin : begin + 5000] = best[:, :TOP_K]
    for layer in range(DRAWN, layers):
        renamed = rng.permutation(EXPERTS).astype(np.int16)
        experts_LTK[layer] = renamed[experts_LTK[layer % DRAWN]]
    source_T = np.arange(tokens) % gpus
    return TokenPart(
        experts_LTK=experts_LTK,
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=running_index(source_T),
        row_T=np.arange(tokens),
    )


def place(part: TokenPart, gpus: int, slots: int, seed: int) -> PlacementPlan:
    """Put experts on GPUs at random, the most used twice, with unequal weights."""
    rng = np.random.default_rng(seed)
    layers = len(part.experts_LTK)
    slots_LGJ = np.empty((layers, gpus, slots), dtype=np.int16)
    split = {}
    for layer in range(layers):
        used_E = np.bincount(part.experts_LTK[layer].reshape(-1), minlength=EXPERTS)
        copied = np.argsort(-used_E)[: gpus * slots - EXPERTS]
        held = np.concatenate([np.arange(EXPERTS), copied])
        slots_LGJ[layer] = rng.permutation(held).reshape(gpus, slots)
        split |= {(layer, int(expert)): {"*": (3, 5)} for expert in copied}
    return PlacementPlan(
        layer_numbers=tuple(range(layers)), slots_LGJ=slots_LGJ, split=split
    )


def by_numpy(
    plan: PlacementPlan,
    part: TokenPart,
    layout: ParallelLayout,
    traffic: str,
    selection: str,
) -> list[LayerTransfers]:
    """Count a part with the verifier's program."""
    found, stand_T = [], part.source_T
    for layer in range(len(plan.layer_numbers)):
        targets_TK = chosen_ranks(
            plan.slots_LGJ[layer],
            {e: own for (at, e), own in plan.split.items() if at == layer},
            selection,
            part.experts_LTK[layer],
            stand_T,
            part.rank_T,
            part.ordinal_T,
            layout,
        )
        dispatch, combine, stand_T = both_legs(
            traffic, "local_nic", targets_TK, stand_T, layout
        )
        pairs_G = gpu_pairs(targets_TK, layout.gpu_count)
        found.append(
            LayerTransfers(dispatch=dispatch, combine=combine, pairs_G=pairs_G)
        )
    if traffic == "direct":
        home = homeward(stand_T, part.source_T, layout.gpu_count)
        found[-1] = replace(found[-1], combine=found[-1].combine.plus(home))
    return found


def require_equal(
    found: list[LayerTransfers], wanted: list[LayerTransfers], times: int = 1
) -> None:
    """Compare all pairs of GPUs of both legs and all loads, layer by layer."""
    for one, other in zip(found, wanted, strict=True):
        for leg in ("dispatch", "combine"):
            counted, known = getattr(one, leg).matrix(), getattr(other, leg).matrix()
            if not np.array_equal(counted, times * known):
                raise SystemExit(f"{leg}: the two counts differ")
        if not np.array_equal(one.pairs_G, times * other.pairs_G):
            raise SystemExit("pairs per GPU: the two counts differ")


def speeds(given: argparse.Namespace, layout: ParallelLayout) -> None:
    """Print pairs per second of all modes and selections."""
    part = draw(given.tokens, DRAWN, given.gpus, 1)
    plan = place(part, given.gpus, given.slots, 2)
    pairs = DRAWN * given.tokens
    print("| mode | selection | M pairs/s | NumPy, M pairs/s | ratio | to pairs, ms |")
    print("|---|---|---|---|---|---|")
    for traffic, selection in product(MODES, SELECTIONS):
        counting = Counting(
            plan, layout, traffic=traffic, selection=selection, endpoint="local_nic"
        )
        counting.add(part)
        begun = time.process_time()
        found = counting.layers()
        folded = (time.process_time() - begun) / DRAWN
        begun = time.process_time()
        wanted = by_numpy(plan, part, layout, traffic, selection)
        slow = time.process_time() - begun
        require_equal(found, wanted)
        seconds = []
        for _ in range(given.rounds):
            begun = time.process_time()
            counting.add(part)
            seconds.append(time.process_time() - begun)
        fast = float(np.median(seconds))
        print(
            f"| {traffic} | {selection} | {pairs / fast / 1e6:.1f} | "
            f"{pairs / slow / 1e6:.2f} | {slow / fast:.0f} | {folded * 1e3:.1f} |"
        )


def stream(given: argparse.Namespace, layout: ParallelLayout) -> None:
    """Send a long trace through and print seconds and memory."""
    part = draw(given.tokens, given.layers, given.gpus, 1)
    plan = place(part, given.gpus, given.slots, 2)
    rules = {
        "traffic": given.traffic,
        "selection": given.selection,
        "endpoint": "local_nic",
    }
    counting = Counting(plan, layout, **rules)
    wall, used = time.perf_counter(), time.process_time()
    for chunk in repeated(part, given.times):
        counting.add(chunk)
    found = counting.layers()
    wall, used = time.perf_counter() - wall, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    tokens = given.times * given.tokens
    print(
        f"{given.traffic}, {given.selection}: {tokens:,} tokens of {given.layers} "
        f"layers in {wall:.1f} s ({used:.1f} s of the processor, "
        f"{tokens * given.layers / used / 1e6:.1f} M pairs/s); peak {peak:.2f} GB"
    )
    if given.selection == "nearest":
        once = by_numpy(plan, part, layout, given.traffic, given.selection)
        require_equal(found, once, given.times)
        print("equal to the NumPy count of one pass, times the repetitions")
        return
    counting = Counting(plan, layout, **rules)
    twice = []
    for chunk in repeated(part, 2):
        counting.add(chunk)
        twice.append(by_numpy(plan, chunk, layout, given.traffic, given.selection))
    wanted = [first.plus(second) for first, second in zip(*twice, strict=True)]
    require_equal(counting.layers(), wanted)
    print("the first two repetitions are equal to the NumPy count of them")


def from_file(given: argparse.Namespace, layout: ParallelLayout) -> None:
    """Write a long trace, count it from the file, and print seconds and memory."""
    model = load_model("deepseek-v3")
    part = draw(given.tokens, len(model.moe_layers), given.gpus, 1)
    plan = place(part, given.gpus, given.slots, 2)
    rules = {
        "traffic": given.traffic,
        "selection": given.selection,
        "endpoint": "local_nic",
    }
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "long.parquet"
        write_again_and_again(path, part, given.times)
        size = path.stat().st_size / 1e9
        wall, used = time.perf_counter(), time.process_time()
        counting, tokens = Counting(plan, layout, **rules), 0
        for chunk in TokenStream(path, model).chunks(layout, "by_token", None):
            tokens += chunk.token_count
            counting.add(chunk)
        found = counting.layers()
    wall, used = time.perf_counter() - wall, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{given.traffic}, {given.selection}: {tokens:,} tokens of a file of "
        f"{size:.1f} GB in {wall:.1f} s ({used:.1f} s of the processor); "
        f"peak {peak:.2f} GB"
    )
    counting = Counting(plan, layout, **rules)
    for chunk in repeated(part, given.times):
        counting.add(chunk)
    require_equal(found, counting.layers())
    print("equal to the repetitions counted in memory")


def write_again_and_again(path: Path, part: TokenPart, times: int) -> None:
    """Write a part's choices so often into a trace file of ``deepseek-v3``."""
    model = load_model("deepseek-v3")
    facts = {"num_experts": EXPERTS, "top_k": TOP_K, "moe_layers": model.moe_layers}
    columns = {"seq_id": pa.array(part.row_T, pa.uint32())}
    for number, ids_TK in zip(model.moe_layers, part.experts_LTK, strict=True):
        flat = pa.array(ids_TK.reshape(-1), pa.uint8())
        columns[f"e{number:02d}"] = pa.FixedSizeListArray.from_arrays(flat, TOP_K)
    table = pa.table(columns).replace_schema_metadata({"moe_trace": json.dumps(facts)})
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(times):
            writer.write_table(table)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--file", action="store_true")
    parser.add_argument("--folder", help="for the file of --file")
    parser.add_argument("--gpus", type=int, default=32)
    parser.add_argument("--slots", type=int, default=9, help="per GPU and layer")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=58, help="with --stream")
    parser.add_argument("--times", type=int, default=100, help="with --stream")
    parser.add_argument("--traffic", default="dedup_domain", choices=MODES)
    parser.add_argument("--selection", default="even", choices=SELECTIONS)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    layout = ParallelLayout(
        domain_G=np.arange(given.gpus) // DOMAIN,
        ep=given.gpus,
        attention_groups=tuple((gpu,) for gpu in range(given.gpus)),
    )
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if given.file:
        from_file(given, layout)
    elif given.stream:
        stream(given, layout)
    else:
        speeds(given, layout)


if __name__ == "__main__":
    main()
