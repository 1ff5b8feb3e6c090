"""``partition``: experts that tokens choose together, kept together by Mt-KaHyPar.

Experts are the vertices of a hypergraph, each token is a net of the experts it chose,
and Σ over tokens of (blocks it touches − 1) is cut down: first with the scale-up
domains as blocks, then with the GPUs of each domain. The blocks are then matched to
domains and GPUs so that tokens find experts where they start. Needs the optional
extra ``[partition]``, which nothing else here looks at.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from ortools.graph.python import linear_sum_assignment

from planner import clock
from planner.arrays import BoolArray, FloatArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.baselines.base import (
    BASELINES,
    COSTS,
    AbsentBaselineError,
    expert_loads,
)
from planner.traffic.base import TRAFFIC
from planner.workload.parts import CountsPart, TokenPart

LOOSE = 1.1
"""Max/mean load of domains where no cap is given: busy links follow load as well."""
TOKENS, FEWEST = 10_000, 100
"""Tokens looked at in all layers together, and at least in each: on DeepSeek-V2-Lite
a layer's cut by 1,000 tokens is within 1 % of that by all."""
PLACE = 4
"""Weight of an expert's place against the most that a block's loads can be: at 1 the
partitioner often misses the exact numbers of experts, at 4 it was never seen to."""
_PARTS = 10_000
"""Units that the mean load of a block is counted in."""
_CUT_SECONDS, _NET_SECONDS = 0.012, 1.6e-5
"""Rates of counted work: a cut, and each net and block of it."""
_INNER = 0.2
"""Share of the nets that have two experts in a domain, and are none like others."""
_DONE: WeakKeyDictionary[PlacementInstance, IdArray] = WeakKeyDictionary()
"""Asked for twice: as a start, and for the manifest."""


class Nets(NamedTuple):
    """Tokens of a layer: experts each chose [T, E], weight, EP rank it starts at."""

    chose_TE: BoolArray
    weight_T: IntArray
    rank_T: IntArray

    def inside(self, experts: IntArray) -> "Nets":
        """Return the same tokens with these experts only."""
        return self._replace(chose_TE=self.chose_TE[:, experts])


@BASELINES.register("partition")
def partition(instance: PlacementInstance) -> IdArray:
    """Partition the experts of every layer by what tokens choose (see the module)."""
    domain_R, kahypar = _domains(instance), _kahypar()
    if instance not in _DONE:
        load_LE = expert_loads(instance).astype(np.float64)
        _DONE[instance] = np.stack(
            [
                _layer(instance, kahypar, domain_R, nets_of(instance, layer), load_E)
                for layer, load_E in enumerate(load_LE)
            ]
        ).astype(np.int16)
    return _DONE[instance].copy()


def _seconds(instance: PlacementInstance) -> float:
    """Return about how long :func:`partition` takes."""
    domains = int(_domains(instance).max()) + 1
    _kahypar()
    nets = _most_tokens(instance) * len(instance.views)
    layer = (domains > 1) * (_CUT_SECONDS + _NET_SECONDS * nets * domains)
    if instance.slots_per_gpu > 1:
        blocks = _INNER * instance.layout.ep
        layer += domains * _CUT_SECONDS + _NET_SECONDS * nets * blocks
    return instance.layer_count * layer


COSTS["partition"] = _seconds


def _most_tokens(instance: PlacementInstance) -> int:
    """Return how many tokens of a layer of each workload are looked at."""
    return max(FEWEST, TOKENS // (instance.layer_count * len(instance.views)))


def _kahypar() -> ModuleType:
    """Import the extra.

    Raises
    ------
    AbsentBaselineError
        If it is not installed.
    """
    try:
        import mtkahypar
    except ImportError:
        raise AbsentBaselineError(
            "Mt-KaHyPar is not installed: pip install "
            "'moe-placement-planner[partition]'"
        ) from None
    module: ModuleType = mtkahypar
    return module


def _domains(instance: PlacementInstance) -> IntArray:
    """Return the domain of every EP rank, counted from 0 [ep].

    Raises
    ------
    AbsentBaselineError
        If there is no such partition of the experts.
    """
    if instance.single or instance.slot_count != instance.model.experts:
        raise AbsentBaselineError("a partition has no redundant experts")
    for view in instance.views:
        if isinstance(view.planning, CountsPart):
            raise AbsentBaselineError("a partition needs to know each token's experts")
        if TRAFFIC.get(view.traffic).linear or TRAFFIC.get(view.traffic).chained:
            raise AbsentBaselineError(
                f"traffic {view.traffic} gains nothing from experts kept together"
            )
    layout = instance.layout
    sets = layout.domain_G.reshape(layout.sets, layout.ep)
    labels = [np.unique(domain_R, return_inverse=True)[1] for domain_R in sets]
    if any((label_R != labels[0]).any() for label_R in labels[1:]):
        raise AbsentBaselineError("EP sets lie differently in their domains")
    return labels[0].astype(np.int64)


def nets_of(instance: PlacementInstance, layer: int) -> Nets:
    """Return some tokens of a layer, evenly spread over each workload's part."""
    experts, ep = instance.model.experts, instance.layout.ep
    most = _most_tokens(instance)
    whole = float(sum(workload.weight for workload in instance.workloads))
    chose, weights, ranks = [], [], []
    for view, workload in zip(instance.views, instance.workloads, strict=True):
        part = view.planning
        assert isinstance(part, TokenPart)
        count = min(most, part.token_count)
        token_T = np.arange(count) * part.token_count // max(count, 1)
        ids_TK = part.experts_LTK[layer][token_T].astype(np.int64)
        chose_TE = np.zeros((count, experts), dtype=np.bool_)
        row, column = np.nonzero(ids_TK >= 0)
        chose_TE[row, ids_TK[row, column]] = True
        chose.append(chose_TE)
        weight = max(1, round(100 * float(workload.weight) / whole))
        weights.append(np.full(count, weight, dtype=np.int64))
        ranks.append(part.source_T[token_T] % ep)
    return Nets(np.concatenate(chose), np.concatenate(weights), np.concatenate(ranks))


def _layer(
    instance: PlacementInstance,
    kahypar: ModuleType,
    domain_R: IntArray,
    nets: Nets,
    load_E: FloatArray,
) -> IntArray:
    """Return the experts of every EP rank [ep, J], ascending."""
    caps, slots = instance.caps, instance.slots_per_gpu
    room_C = np.bincount(domain_R) * slots
    given = [cap for cap in (caps.domain, caps.gpu) if cap is not None]
    cap = min(given) if given else LOOSE
    block_E = cut_blocks(kahypar, nets, load_E, room_C, cap)
    at_TC = domain_R[nets.rank_T][:, None] == np.arange(room_C.size)
    domain_E = _matched(nets, block_E, at_TC, room_C)[block_E]
    slots_RJ = np.empty((domain_R.size, slots), dtype=np.int64)
    for domain, room in enumerate(room_C.tolist()):
        ranks = np.flatnonzero(domain_R == domain)
        experts = np.flatnonzero(domain_E == domain)
        inner = nets.inside(experts)
        room_G = np.full(room // slots, slots)
        gpu_X = cut_blocks(kahypar, inner, load_E[experts], room_G, caps.gpu)
        place_G = _matched(inner, gpu_X, _arrivals(instance, nets, ranks), room_G)
        order = np.argsort(place_G[gpu_X], kind="stable")
        slots_RJ[ranks] = experts[order].reshape(-1, slots)
    return slots_RJ


def _arrivals(instance: PlacementInstance, nets: Nets, ranks: IntArray) -> BoolArray:
    """Return on which GPU of a domain each token is before it is served there [T, G].

    At its home; and where transfers between domains keep their rail, on that of its
    home's rail, wherever it comes from.
    """
    keeps_rail = any(view.traffic == "dedup_domain" for view in instance.views)
    if not keeps_rail:
        return np.asarray(nets.rank_T[:, None] == ranks)
    relay_T = instance.layout.relays(nets.rank_T, np.asarray(ranks[0]))
    return np.asarray(relay_T[:, None] == ranks)


def cut_blocks(
    kahypar: ModuleType,
    nets: Nets,
    load_E: FloatArray,
    room_C: IntArray,
    cap: float | None,
) -> IntArray:
    """Return the block of each expert: exactly ``room_C`` experts in every block.

    A block's load is at most ``cap`` times its share of slots, if that was found. One
    weight per expert says both: one for its place, which is more than the loads of a
    block can be together, and its load.
    """
    pins, weights = _aggregated(nets)
    experts = load_E.size
    alone = room_C.size == 1 or room_C.max() == 1
    if alone or not pins:
        return np.repeat(np.arange(room_C.size), room_C)
    parts_E, limit_C = np.zeros(experts, dtype=np.int64), np.zeros_like(room_C)
    if cap is not None and load_E.sum() > 0:
        whole = _PARTS * room_C.size
        parts_E = np.ceil(load_E / load_E.sum() * whole).astype(np.int64)
        least = float(parts_E.sum())
        limit_C = np.ceil(max(cap * whole - 1, least) * room_C / experts).astype(
            np.int64
        )
    place = PLACE * int(limit_C.max()) + 1
    clock.spend(_CUT_SECONDS + _NET_SECONDS * len(pins) * room_C.size)
    threads = kahypar.initialize(1, False)
    context = threads.context_from_preset(kahypar.PresetType.DETERMINISTIC)
    context.logging = False
    kahypar.set_seed(0)
    context.set_partitioning_parameters(room_C.size, 0.0, kahypar.Objective.KM1)
    graph = threads.create_hypergraph(
        context, experts, len(pins), pins, (place + parts_E).tolist(), weights
    )
    context.set_individual_target_block_weights((room_C * place + limit_C).tolist())
    found: Sequence[int] = graph.partition(context).get_partition()
    return filled(np.asarray(found, dtype=np.int64), load_E, room_C)


def _aggregated(nets: Nets) -> tuple[list[list[int]], list[int]]:
    """Return nets of two experts or more, equal ones as one, and their weights."""
    wide_T = nets.chose_TE.sum(axis=1) > 1
    chose_NE, net_T = np.unique(nets.chose_TE[wide_T], axis=0, return_inverse=True)
    weight_N = np.bincount(
        net_T.ravel(), weights=nets.weight_T[wide_T], minlength=len(chose_NE)
    )
    pins = [np.flatnonzero(chose_E).tolist() for chose_E in chose_NE]
    return pins, weight_N.astype(np.int64).tolist()


def filled(block_E: IntArray, load_E: FloatArray, room_C: IntArray) -> IntArray:
    """Move the lightest experts of blocks with too many to those with too few."""
    block_E = block_E.copy()
    for block in range(room_C.size):
        inside = np.flatnonzero(block_E == block)
        lightest = inside[np.argsort(load_E[inside], kind="stable")]
        for expert in lightest[: max(0, inside.size - int(room_C[block]))].tolist():
            free_C = room_C - np.bincount(block_E, minlength=room_C.size)
            block_E[expert] = int(np.argmax(free_C))
    return block_E


def _matched(
    nets: Nets, block_E: IntArray, at_TC: BoolArray, room_C: IntArray
) -> IntArray:
    """Return the place of each block: most tokens are to start where they are served.

    ``at_TC`` says at which place each token starts; blocks of one size change places.
    """
    blocks = np.arange(room_C.size)
    in_EC = (block_E[:, None] == blocks).astype(np.float64)
    touches_TC = nets.chose_TE.astype(np.float64) @ in_EC > 0
    met_CC = (touches_TC * nets.weight_T[:, None]).T @ at_TC.astype(np.float64)
    block, place = np.nonzero(room_C[:, None] == room_C)
    solver = linear_sum_assignment.SimpleLinearSumAssignment()
    solver.add_arcs_with_cost(block, place, -met_CC[block, place].astype(np.int64))
    if solver.solve() != solver.OPTIMAL:
        return blocks
    return np.asarray([solver.right_mate(int(at)) for at in blocks], dtype=np.int64)
