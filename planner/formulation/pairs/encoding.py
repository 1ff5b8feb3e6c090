"""When a layer is encoded by pairs, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.arrays import FloatArray
from planner.formulation.cut.ports import LegRows, Ports
from planner.formulation.cut.problem import LayerProblem
from planner.formulation.pairs.flows import (
    FlowModel,
    encode_flows,
    expert_flows,
    flow_prices,
)
from planner.formulation.pairs.rows import entry_count, pair_legs
from planner.formulation.pairs.single import (
    SingleModel,
    encode_single,
    single_prices,
)
from planner.instance import PlacementInstance

MOST_FLOWS = 30_000
"""Flows beyond which the cut formulation's relaxation is kept."""
MOST_COEFFICIENTS = 4_000_000
"""Likewise of (link, expert, rank) coefficients where experts have one copy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairEncoding:
    """Encodes layers by pairs; ``single`` where every expert has one copy."""

    legs: tuple[LegRows, ...]
    single: bool
    name: str = "pairs"

    def columns(self, problem: LayerProblem) -> int:
        """Return about how many columns a layer has."""
        if self.single:
            return problem.experts * problem.ranks
        return problem.experts * problem.gpu_count * problem.ranks

    def encode(self, problem: LayerProblem) -> SingleModel | FlowModel:
        """Return the model of a layer."""
        ports = replace(problem.ports, legs=self.legs)
        over_pairs = replace(problem, ports=ports)
        return encode_single(over_pairs) if self.single else encode_flows(over_pairs)

    def flows(
        self, encoded: SingleModel | FlowModel, values_V: FloatArray, expert: int
    ) -> FloatArray:
        """Return the flows of one expert [G source, G server]."""
        if isinstance(encoded, FlowModel):
            return expert_flows(encoded, values_V, expert)
        held_R = values_V[encoded.columns.placed_ER[expert]]
        problem = encoded.problem
        set_G = problem.hierarchy.block_KG[-1]
        there_GG = (set_G[:, None] == set_G[None, :]) * held_R[problem.rank_G]
        flow_GG: FloatArray = problem.amount_EG[expert][:, None] * there_GG
        return np.asarray(flow_GG / encoded.scale.flow_unit)

    def prices(
        self, encoded: SingleModel | FlowModel, duals_R: FloatArray
    ) -> Mapping[str, Any]:
        """Return the certificate of an LP's multipliers."""
        if isinstance(encoded, FlowModel):
            return flow_prices(encoded, duals_R)
        return single_prices(encoded, duals_R)


def pair_encoding(instance: PlacementInstance, ports: Ports) -> PairEncoding | None:
    """Return how to encode an instance by pairs; None if cuts say it all, or cheaper.

    Cuts are exact unless some link depends on who sends to whom; pairs always are,
    and cost a column for each expert and pair of GPUs unless experts have one copy.
    """
    if not ports.relaxed:
        return None
    experts, layout = instance.model.experts, instance.layout
    single = instance.slot_count == experts
    if not single and experts * layout.gpu_count * layout.ep > MOST_FLOWS:
        return None
    legs = pair_legs(instance, ports.hierarchy)
    links = sum(int(leg.row_Y.max(initial=-1)) + 1 for leg in legs)
    if single and links * experts * layout.ep > MOST_COEFFICIENTS:
        return None
    if entry_count(legs) > MOST_COEFFICIENTS:
        return None
    return PairEncoding(legs=legs, single=single)
