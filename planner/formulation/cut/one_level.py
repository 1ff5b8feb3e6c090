"""One level of borders and a free split: a small LP, its prices, what they prove.

Every domain has one port out and one port in. Without caps a domain that holds an
expert serves itself: taking δ of its demand home lowers its egress by δ and the
ingress of whoever served it by δ, and raises nothing. So with x[e, n] = 1 where
domain n holds expert e, and from[e, n] what n serves of other domains' demand,

    egress(n)  = Σ_e D[e, n]·(1 − x[e, n])    <= up(n)·t
    ingress(n) = Σ_e from[e, n]               <= down(n)·t
    Σ_n from[e, n] = Σ_n D[e, n]·(1 − x[e, n]),   from[e, n] <= (W_e − D[e, n])·x[e, n]
    Σ_e x[e, n] = slots(n),   Σ_n x[e, n] >= 1

(half the columns of the general model of ``encode``). Who sends to whom is free and
needs no column: a domain that holds e neither sends nor is sent its own demand. Axes:
E experts, N domains.
"""

from dataclasses import dataclass

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.errors import SolverError
from planner.formulation.linear_model import LinearModel, ModelBuilder
from planner.formulation.mathopt import solve_linear

PROVEN = 1 - 1e-9
"""Bounds are lowered by this factor: their terms are doubles."""
_ROOM = 2.0
"""Flows get boxes that never bind."""
_SPLIT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class OneLevel:
    """Demand, slots and ports of domains.

    Attributes
    ----------
    demand_EN
        Pairs that domain n wants from expert e, >= 0.
    slots_N
        Distinct experts that a domain holds, at most E.
    up_N, down_N
        Pairs that leave, or enter, per unit of the objective, > 0.
    """

    demand_EN: FloatArray
    slots_N: IntArray
    up_N: FloatArray
    down_N: FloatArray

    def __post_init__(self) -> None:
        """Refuse what has no placement or no finite value.

        Raises
        ------
        ValueError
            If slots cannot cover the experts once, or exceed them in a domain, or
            if a demand or a port is out of range.
        """
        experts, domains = self.demand_EN.shape
        arrays = (self.slots_N, self.up_N, self.down_N)
        if any(array.shape != (domains,) for array in arrays):
            raise ValueError("slots_N, up_N and down_N must have one entry per domain")
        if int(self.slots_N.sum()) < experts:
            raise ValueError("fewer slots than experts")
        if int(self.slots_N.min()) < 0 or int(self.slots_N.max()) > experts:
            raise ValueError("slots of a domain must be 0 … E: copies are distinct")
        if self.demand_EN.min() < 0 or not np.isfinite(self.demand_EN).all():
            raise ValueError("demand must be finite and >= 0")
        if min(self.up_N.min(), self.down_N.min()) <= 0:
            raise ValueError("ports must be > 0")

    @property
    def total_E(self) -> FloatArray:
        """W_e, all demand for an expert."""
        total: FloatArray = self.demand_EN.sum(axis=1)
        return total

    def egress_N(self, placed_EN: BoolArray) -> FloatArray:
        """Return what leaves each domain under a placement, in pairs."""
        leaves: FloatArray = np.where(placed_EN, 0.0, self.demand_EN).sum(axis=0)
        return leaves

    def value(self, placed_EN: BoolArray, from_EN: FloatArray) -> float:
        """Return the objective: the most that a port needs."""
        up_N = self.egress_N(placed_EN) / self.up_N
        return float(max(up_N.max(), (from_EN.sum(axis=0) / self.down_N).max()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Prices:
    """Multipliers of the rows, >= 0 but for the slots, in units of the objective.

    Attributes
    ----------
    out_N, in_N
        Price of a pair that leaves, or enters: Σ_n up·out + down·in = 1.
    slot_N
        Price of a slot (any sign: every domain fills its slots).
    sold_E
        What serving a pair of the expert elsewhere is worth.
    cover_E
        What a first copy is worth.
    """

    out_N: FloatArray
    in_N: FloatArray
    slot_N: FloatArray
    sold_E: FloatArray
    cover_E: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Relaxed:
    """Prices, what they prove, and the fractional placement [E, N]."""

    prices: Prices
    bound: float
    wanted_EN: FloatArray


def relaxed(problem: OneLevel, seconds: float) -> Relaxed:
    """Solve the LP; if it gives no multipliers in time, equal prices stand in."""
    model = _encoded(problem)
    found: Prices | None = None
    wanted_EN = problem.demand_EN
    try:
        outcome = solve_linear(model, seconds)
    except SolverError:
        # Any prices prove a bound; a solver that gives up costs quality only.
        outcome = None
    if outcome is not None and outcome.duals_R is not None:
        found = _prices_from(problem, model, outcome.duals_R)
    if outcome is not None and outcome.solutions:
        wanted_EN = outcome.solutions[0][model.variables["placed"]]
    prices = _equal_prices(problem) if found is None else found
    return Relaxed(
        prices=prices, bound=priced_bound(problem, prices), wanted_EN=wanted_EN
    )


def priced_bound(problem: OneLevel, prices: Prices) -> float:
    """Return the lower bound that any prices of ports and slots prove.

    The prices of ports weigh all loads together, and weights add up to 1, so their
    weighted sum is at most the objective. Apart from the slots it is a sum over
    experts; an expert's best set of copies is known once its cheapest receiver is
    (:func:`copy_costs`).
    """
    best_E = copy_costs(problem, prices).min(axis=0).sum()
    spent = float(problem.slots_N @ prices.slot_N)
    value = float(best_E) - spent
    return max(0.0, value - (1 - PROVEN) * (abs(value) + abs(spent)))


def copy_costs(problem: OneLevel, prices: Prices) -> FloatArray:
    """Return what an expert costs if domain k receives what leaves others, [k, E].

    Domain n ≠ k then holds a copy iff D·(out + in of k) exceeds the slot's price.
    """
    demand_EN, total_E = problem.demand_EN, problem.total_E
    leaving_E = demand_EN @ prices.out_N
    costs = []
    for receiver in range(demand_EN.shape[1]):
        saved_EN = _saved(problem, prices, receiver)
        own_E = saved_EN[:, receiver].copy()
        kept_E = np.maximum(saved_EN, 0.0).sum(axis=1)
        kept_E += own_E - np.maximum(own_E, 0.0)
        costs.append(leaving_E + total_E * prices.in_N[receiver] - kept_E)
    return np.stack(costs)


def regrets(problem: OneLevel, prices: Prices) -> FloatArray:
    """Return how much more an expert costs with a copy at n than without, [E, N].

    Negative where the prices want the copy.
    """
    cost_NE = copy_costs(problem, prices)
    experts, domains = problem.demand_EN.shape
    held_EN = np.full((experts, domains), np.inf)
    bare_EN = np.full((experts, domains), np.inf)
    for receiver in range(domains):
        saved_EN = _saved(problem, prices, receiver)
        cost_E1 = cost_NE[receiver][:, None]
        with_EN = cost_E1 + np.maximum(0.0, -saved_EN)
        without_EN = cost_E1 + np.maximum(0.0, saved_EN)
        with_EN[:, receiver] = cost_NE[receiver]
        without_EN[:, receiver] = np.inf
        held_EN = np.minimum(held_EN, with_EN)
        bare_EN = np.minimum(bare_EN, without_EN)
    # A lone domain has no "without": its copy is wanted by everyone.
    regret: FloatArray = np.where(np.isfinite(bare_EN), held_EN - bare_EN, -np.inf)
    return regret


def _saved(problem: OneLevel, prices: Prices, receiver: int) -> FloatArray:
    """What a copy at n saves if others' demand goes to ``receiver``, less its slot."""
    per_pair_N = prices.out_N + prices.in_N[receiver]
    saved: FloatArray = problem.demand_EN * per_pair_N - prices.slot_N
    return saved


def best_split(problem: OneLevel, placed_EN: BoolArray) -> FloatArray:
    """Return what each copy serves of other domains' demand, best for the ingress.

    Only experts with several copies are the linear program's.

    Raises
    ------
    SolverError
        If the solver fails.
    """
    left_E = np.where(placed_EN, 0.0, problem.demand_EN).sum(axis=1)
    several_E = (placed_EN.sum(axis=1) > 1) & (left_E > 0)
    from_EN = np.where(placed_EN, left_E[:, None], 0.0)
    from_EN[several_E] = 0.0
    if not several_E.any():
        return from_EN
    copies_E = np.flatnonzero(several_E)
    entry, domain = np.nonzero(placed_EN[copies_E])
    model, unit = _split_model(problem, from_EN, left_E[copies_E], (entry, domain))
    outcome = solve_linear(model, _SPLIT_SECONDS, simplex=True)
    if not outcome.solutions:
        raise SolverError(f"the split of a placement ended as {outcome.reason}")
    served = np.maximum(outcome.solutions[0][model.variables["served"]], 0.0) * unit
    # Exactly what is left, whatever the solver's tolerance made of it.
    total = np.bincount(entry, weights=served, minlength=copies_E.size)
    scale = left_E[copies_E] / np.where(total > 0, total, 1.0)
    from_EN[copies_E[entry], domain] = served * scale[entry]
    return from_EN


def _split_model(
    problem: OneLevel,
    fixed_EN: FloatArray,
    left_C: FloatArray,
    copies: tuple[IntArray, IntArray],
) -> tuple[LinearModel, float]:
    """Return the LP of the split and its unit of flow; ``copies`` are (row, domain)."""
    entry, domain = copies
    unit = float(left_C.sum())
    cost_N = 1.0 / problem.down_N
    cost_N = cost_N / cost_N.max()
    builder = ModelBuilder()
    served = builder.variables("served", entry.shape, upper=left_C[entry] / unit)
    base_N = fixed_EN.sum(axis=0) / unit * cost_N
    highest = float((base_N + cost_N).max())
    peak = builder.variables("peak", (1,), upper=highest, cost=1.0)
    whole = builder.rows(
        "whole", left_C.shape, lower=left_C / unit, upper=left_C / unit
    )
    builder.add(whole[entry], served)
    ingress = builder.rows("ingress", base_N.shape, upper=-base_N)
    builder.add(ingress[domain], served, cost_N[domain])
    builder.add(ingress, peak, -1.0)
    return builder.build(), unit


def _encoded(problem: OneLevel) -> LinearModel:
    """Return the LP; one unit of flow is the mean demand, one of t its time."""
    unit, time = _units(problem)
    demand_EN, total_E = problem.demand_EN / unit, problem.total_E / unit
    up_N, down_N = unit / (problem.up_N * time), unit / (problem.down_N * time)
    other_EN = total_E[:, None] - demand_EN
    experts, domains = demand_EN.shape
    builder = ModelBuilder()
    placed = builder.variables("placed", (experts, domains), upper=1.0)
    served = builder.variables("served", (experts, domains), upper=_ROOM * other_EN)
    highest = float(max((demand_EN.sum(axis=0) * up_N).max(), total_E.sum()))
    peak = builder.variables("peak", (1,), upper=_ROOM * highest, cost=1.0)
    service = builder.rows("service", (experts, domains), upper=0.0)
    builder.add(service, served)
    builder.add(service, placed, -other_EN)
    whole = builder.rows("whole", (experts,), lower=total_E, upper=total_E)
    builder.add(whole[:, None], served)
    builder.add(whole[:, None], placed, demand_EN)
    cover = builder.rows("cover", (experts,), lower=1.0)
    builder.add(cover[:, None], placed)
    slots_N = problem.slots_N.astype(np.float64)
    slots = builder.rows("slots", (domains,), lower=slots_N, upper=slots_N)
    builder.add(slots[None, :], placed)
    leaving_N = demand_EN.sum(axis=0) * up_N
    egress = builder.rows("egress", (domains,), upper=-leaving_N)
    builder.add(egress[None, :], placed, -demand_EN * up_N)
    builder.add(egress, peak, -1.0)
    ingress = builder.rows("ingress", (domains,), upper=0.0)
    builder.add(ingress[None, :], served, down_N)
    builder.add(ingress, peak, -1.0)
    return builder.build()


def _units(problem: OneLevel) -> tuple[float, float]:
    unit = float(problem.demand_EN.sum()) / len(problem.demand_EN) or 1.0
    return unit, unit / float(min(problem.up_N.min(), problem.down_N.min()))


def _prices_from(
    problem: OneLevel, model: LinearModel, duals_R: FloatArray
) -> Prices | None:
    """Return the multipliers in the units of the problem; None if all are zero."""
    unit, time = _units(problem)
    families = model.families
    out_N = np.maximum(-duals_R[families["egress"]], 0.0) / problem.up_N
    in_N = np.maximum(-duals_R[families["ingress"]], 0.0) / problem.down_N
    weight = float(out_N @ problem.up_N + in_N @ problem.down_N)
    if not np.isfinite(weight) or weight <= 0:
        return None
    return Prices(
        out_N=out_N / weight,
        in_N=in_N / weight,
        slot_N=-duals_R[families["slots"]] * time / weight,
        sold_E=duals_R[families["whole"]] * time / unit / weight,
        cover_E=np.maximum(duals_R[families["cover"]], 0.0) * time / weight,
    )


def _equal_prices(problem: OneLevel) -> Prices:
    """Every port has the same weight; slots and experts cost nothing."""
    experts, domains = problem.demand_EN.shape
    return Prices(
        out_N=1.0 / (2 * domains * problem.up_N),
        in_N=1.0 / (2 * domains * problem.down_N),
        slot_N=np.zeros(domains),
        sold_E=np.zeros(experts),
        cover_E=np.zeros(experts),
    )
