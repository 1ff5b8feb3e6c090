"""Evaluator, counter, virtual ranks and gloo ranks on whole traces: one count.

    python -m benchmarks.back_ends [--tokens 4000] [--ranks 2 4 8] [--traces tiny]

For every traffic mode, selection and regime (placed: every expert once; replicated:
two more slots per GPU; single: one expert per GPU altogether) it says which counts
differ between the evaluator's prediction and what each back end moved: ordered GPU
pairs of both legs, (token, expert) pairs of GPUs, and link numerators. tiny-moe runs
with real gating, DeepSeek-V2-Lite with forced routing (its ids are sorted, so
``direct`` is left out). single runs on as many virtual ranks as there are experts and
layers; of V2-Lite the first three layers.
"""

import argparse
import importlib
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner import bundled
from planner.executor.host import ProcessHost
from planner.executor.replay import replay
from planner.executor.world.nursery import Nursery
from planner.executor.world.standing import StandingWorld
from planner.plan import PlacementPlan
from planner.topology.schema import load_topology
from planner.traffic.base import TRAFFIC
from planner.workload.parts import TokenPart
from planner.workload.presets import load_model
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace
from tests.instances import cluster, placed_on
from tests.unit.executor.replays import Job, Seen, predicted

SELECTIONS = ("nearest", "even", "weighted")
HOSTS = {2: [1, 1], 4: [2, 2], 8: [4, 4]}


@dataclass(frozen=True)
class TextJob:
    """A job, and whether the model routes it itself."""

    job: Job
    text: tuple[Any, Any] | None

    def replay(self, backend: str, host: ProcessHost | None = None) -> Seen:
        """Move the part."""
        words: dict[str, Any] = {}
        if self.text is not None and backend != "counter":
            words = {
                "weights": bundled.tiny_moe_weights(),
                "token_ids": self.text[0],
                "seq_ids": self.text[1],
            }
        gating = "real" if words else "forced"
        return Seen.of(replay(backend, gating, **self.job.options, host=host, **words))


def between(world: Any, job: TextJob) -> Seen | None:
    """Replay on one rank; rank 0 tells."""
    seen = job.replay("distributed", ProcessHost(world.group, world.device))
    return seen if world.rank == 0 else None


def slots_of(regime: str, experts: int, layers: int, gpus: int) -> Any:
    """Random slots of a regime, [L, G, J]."""
    rng = np.random.default_rng(3)
    if regime == "single":
        slots = np.full((layers, gpus, 1), -1, dtype=np.int16)
        for place, gpu in enumerate(rng.permutation(gpus)):
            slots[place // experts, gpu, 0] = place % experts
        return slots
    own = -(-experts // gpus)
    more = 2 if regime == "replicated" else 0
    slots = np.full((layers, gpus, own + more), -1, dtype=np.int16)
    for layer in range(layers):
        order = rng.permutation(gpus * own).reshape(gpus, own)
        slots[layer, :, :own] = np.where(order < experts, order, -1)
        for gpu, extra in itertools.product(range(gpus), range(more)):
            others = np.setdiff1d(np.arange(experts), slots[layer, gpu])
            slots[layer, gpu, own + extra] = rng.choice(others)
    return slots


def job_of(
    trace: RoutingTrace, hosts: list[int], rules: tuple[str, str, str], tokens: int
) -> TextJob:
    """Whole sequences of a trace on a cluster; layers are cut in regime single."""
    traffic, selection, regime = rules
    topology = load_topology(cluster(hosts))
    gpus = topology.gpu_count
    layers = gpus // trace.num_experts if regime == "single" else None
    numbers = trace.layer_numbers[:layers]
    ends = np.flatnonzero(np.diff(trace.sequence_T, append=-1)) + 1
    rows = int(ends[ends <= tokens].max())
    source = np.arange(rows) % gpus
    part = TokenPart(
        experts_LTK=trace.experts_LTK[:layers, :rows],
        source_T=source,
        rank_T=source,
        ordinal_T=np.arange(rows) // gpus,
        row_T=np.arange(rows),
    )
    slots = slots_of(regime, trace.num_experts, len(numbers), gpus)
    split = {
        (0, e): {"*": tuple(range(1, 1 + int((slots[0] == e).sum())))}
        for e in range(trace.num_experts)
    }
    plan = PlacementPlan(layer_numbers=numbers, slots_LGJ=slots, split=split)
    model = "tiny-moe" if trace.token_id_T is not None else "deepseek-v2-lite"
    instance = placed_on(
        topology,
        load_model(model),
        part,
        slots=slots.shape[2],
        traffic=traffic,
        selection=selection,
    )
    whole = layers is None or layers == len(trace.layer_numbers)
    text = None
    if trace.token_id_T is not None and whole:
        text = (trace.token_id_T, trace.sequence_T)
    return TextJob(Job(instance=instance, plan=plan), text)


def traces(names: list[str]) -> dict[str, RoutingTrace]:
    """Return the traces that are there."""
    data = Path(os.environ.get("PLANNER_SHARED_DATA", "../shared/data"))
    paths = {
        "tiny": bundled.tiny_moe_trace(),
        "v2lite": data / "traces" / "deepseek-v2-lite.parquet",
    }
    found = {}
    for name in names:
        if paths[name].exists():
            loaded = load_trace(paths[name])
            assert isinstance(loaded, RoutingTrace)
            found[name] = loaded
        else:
            print(f"{name}: {paths[name].name} is not there")
    return found


def size(seen: Seen) -> int:
    """Counts there are."""
    arrays = (seen.dispatch, seen.combine, seen.pairs, seen.numerators)
    return sum(int(each.size) for each in arrays)


def shapes(name: str, ranks: list[int]) -> list[tuple[str, list[int]]]:
    """Regimes and clusters: those of the worlds, 32 ranks, one expert per GPU."""
    layers = 6 if name == "tiny" else 3
    clusters = [*(HOSTS[n] for n in ranks), [8] * 4]
    both = [
        (regime, hosts) for hosts in clusters for regime in ("placed", "replicated")
    ]
    return [*both, ("single", [8] * (8 * layers))]


def main() -> None:
    """Print differences by trace, regime, mode and selection."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--traces", nargs="*", default=["tiny", "v2lite"])
    options = parser.parse_args()
    # Ranks look the function up by its module, which is not __main__ there.
    own = importlib.import_module("benchmarks.back_ends")
    nursery = Nursery()
    worlds = {n: StandingWorld(n, nursery=nursery) for n in options.ranks}
    compared = differing = 0
    for name, trace in traces(options.traces).items():
        for (regime, hosts), traffic in itertools.product(
            shapes(name, options.ranks), TRAFFIC.names()
        ):
            if name == "v2lite" and traffic == "direct":
                continue
            start, worst, count = time.perf_counter(), 0.0, 0
            for selection in SELECTIONS:
                rules = (traffic, selection, regime)
                job = own.job_of(trace, hosts, rules, options.tokens)
                wanted = predicted(job.job)
                found = [job.replay(back) for back in ("counter", "local")]
                if sum(hosts) in worlds:
                    found.append(worlds[sum(hosts)].run(own.between, job)[0])
                count += sum(len(each.differs(wanted)) for each in found)
                compared += len(found) * size(wanted)
                worst = max([worst, *(each.error or 0.0 for each in found)])
            differing += count
            backs = "counter local" + (" gloo" if sum(hosts) in worlds else "")
            print(
                f"{name:7} {sum(hosts):4} ranks {regime:10} {traffic:13} {backs:18} "
                f"{count} differ, outputs within {worst:.1e}, "
                f"{time.perf_counter() - start:.1f} s",
                flush=True,
            )
    print(f"{compared:,} counts compared, {differing} differ")
    for world in worlds.values():
        world.close()
    nursery.close()


if __name__ == "__main__":
    main()
