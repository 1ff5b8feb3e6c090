"""A bound of chained traffic where every expert has a port of its own.

With one expert per GPU altogether, what an expert receives or sends passes its own
GPU's port, less what stays in its domain, where few others sit. A linear program over
who shares a domain with whom says what all legs together take at least: everyone has
at most so many neighbours, and neighbours of one expert are neighbours of each other
(triangle rows, added where they are violated). Its multipliers, rounded, are the
certificate; the proof is in ``docs/formulation.md``.
"""

from typing import Any, NamedTuple

import numpy as np

from planner import clock
from planner.arrays import BoolArray, FloatArray, IntArray
from planner.formulation.linear_model import LinearModel, ModelBuilder
from planner.formulation.mathopt import solve_linear
from planner.instance import PlacementInstance
from planner.strategies.flow.flows import Flows
from planner.strategies.flow.rates import Ports
from planner.strategies.flow.seat import saved_by_homes
from planner.strategies.flow.sides import sides_of, widest_of

UNIT = 11_531_520
"""A leg's whole share: divisible by all numbers to 16, as shares often are alike."""
MOST_PAIRS = 40_000
ROUNDS, CUTS = 3, 4_000
"""How often triangles are added, and how many at once."""
WORTH = 0.8
"""Share of the bound known so far that the program must reach to be cut further."""
VIOLATED = 1e-3
SURE = 1 - 1e-7
"""Beyond the tolerance that multipliers of the layers add up to 1 with."""
SECONDS, LEAST_SECONDS = 20.0, 2.0
"""Time for the bound, unless told, and for the program without triangles."""


class Chain(NamedTuple):
    """A bound of the whole objective and the multipliers that prove it."""

    value: float
    certificate: dict[str, Any]


class _Ports(NamedTuple):
    """What passes the ports of a leg: ``total_U`` less what sits with ``partners_V``.

    ``weight_UV`` are transfers of owners U with partners V, nodes without homes.
    """

    name: str
    leg: int
    owner_U: IntArray
    total_U: IntArray
    partner_V: IntArray
    weight_UV: IntArray


class _Model(NamedTuple):
    linear: LinearModel
    column_NN: IntArray
    scale: float


def chain_bound(
    instance: PlacementInstance,
    flows: Flows,
    ports: Ports,
    known: float,
    seconds: float = SECONDS,
) -> Chain | None:
    """Return the bound of all layers; None where it does not apply or says less.

    ``ports`` are those of single GPUs, ``known`` is a bound of the whole. ``seconds``
    limit how often triangles are added.
    """
    until = clock.now() + seconds
    layers, experts = flows.legs // 2, flows.experts
    pairs = layers * experts * (experts - 1) // 2 + (2 * layers - 3) * experts**2
    if pairs > MOST_PAIRS or layers < 2:
        return None
    rows = _rows(instance, flows)
    worst = instance.objective.layers == "worst_layer"
    room = widest_of(instance) - 1
    triangles_T3 = np.zeros((0, 3), dtype=np.int64)
    best: Chain | None = None
    for _ in range(ROUNDS + 1):
        model = _model(rows, (layers, experts), room, triangles_T3, worst=worst)
        left = until - clock.now()
        outcome = solve_linear(model.linear, left if best else max(left, LEAST_SECONDS))
        if outcome.duals_R is None or not outcome.solutions:
            break
        found = _rounded(rows, model, outcome.duals_R, triangles_T3, ports)
        best = found if best is None or found.value > best.value else best
        if best.value < WORTH * known:
            return None
        shared_NN = _shared(model, outcome.solutions[0])
        more_T3 = _violated(shared_NN, model.column_NN >= 0)
        if not len(more_T3) or clock.now() >= until:
            break
        triangles_T3 = np.unique(np.concatenate([triangles_T3, more_T3]), axis=0)
    return best if best is not None and best.value > known * (1 + 1e-12) else None


def _rows(instance: PlacementInstance, flows: Flows) -> list[_Ports]:
    """Return the ports of every leg, messages weighed by their bytes."""
    experts, found = flows.experts, list[_Ports]()
    timed = instance.objective.name == "link_time"
    for layer in range(flows.legs // 2):
        own = layer * experts + np.arange(experts)
        for leg in (0, 1):
            each = instance.message_bytes[leg] if timed else 1
            sides = sides_of(instance, flows, layer, leg)
            weight = {side.kind: each * side.weight_UV for side in sides}
            found += _of_leg(weight, 2 * layer + leg, own, instance)
    return found


def _of_leg(
    weight: dict[str, IntArray], leg: int, own: IntArray, instance: PlacementInstance
) -> list[_Ports]:
    domain_H, before = instance.layout.domain_G, own - own.size
    if "out" in weight:
        far_U = weight["out"].sum(axis=0) - saved_by_homes(weight["out"], domain_H)
        none_UV = np.zeros((own.size, 0), dtype=np.int64)
        return [_Ports("into", leg, own, far_U, own[:0], none_UV)]
    if "between" in weight:
        sent_UV = weight["between"]
        heads = _Ports("into", leg, own, sent_UV.sum(axis=0), before, sent_UV.T)
        tails = _Ports("out", leg, before, sent_UV.sum(axis=1), own, sent_UV)
        return [heads, tails]
    sent_UV = weight["within"]
    leaving_U = sent_UV.sum(axis=1)
    if "home" in weight:
        home_HU = weight["home"].T
        leaving_U = leaving_U + home_HU.sum(axis=0) - saved_by_homes(home_HU, domain_H)
    return [
        _Ports("back_into", leg, own, sent_UV.sum(axis=0), own, sent_UV.T),
        _Ports("back_out", leg, own, leaving_U, own, sent_UV),
    ]


def _model(
    rows: list[_Ports],
    size: tuple[int, int],
    room: int,
    triangles_T3: IntArray,
    *,
    worst: bool,
) -> _Model:
    """Minimize what all legs take over who shares a domain with whom."""
    layers, nodes = size[0], size[0] * size[1]
    scale = float(max(int(each.total_U.max()) for each in rows)) or 1.0
    builder = ModelBuilder()
    # No leg need be above the greatest total, which is 1.
    legs = builder.variables(
        "legs", (2 * layers,), upper=1.0, cost=0.0 if worst else 1.0
    )
    one_X, two_X = _pairs(*size)
    together = builder.variables("together", (one_X.size,), upper=1.0)
    column_NN = np.full((nodes, nodes), -1, dtype=np.int64)
    column_NN[one_X, two_X] = column_NN[two_X, one_X] = together
    for each in rows:
        name = f"{each.name}_{each.leg}"
        row_U = builder.rows(name, each.total_U.shape, lower=each.total_U / scale)
        builder.add(row_U, legs[each.leg])
        column_UV = column_NN[np.ix_(each.owner_U, each.partner_V)]
        builder.add(row_U[:, None], column_UV, each.weight_UV / scale)
    seats = builder.rows("seats", (nodes,), upper=float(room))
    builder.add(seats[one_X], together)
    builder.add(seats[two_X], together)
    corners = builder.rows("triangles", (len(triangles_T3),), upper=1.0)
    for ends, sign in (((0, 1), 1.0), ((1, 2), 1.0), ((0, 2), -1.0)):
        at_T = tuple(triangles_T3[:, end] for end in ends)
        builder.add(corners, column_NN[at_T], sign)
    if worst:
        most = builder.variables("worst", (1,), upper=2.0, cost=1.0)
        layer_L = builder.rows("layers", (layers,), lower=0.0)
        builder.add(layer_L, most)
        builder.add(layer_L[:, None], legs.reshape(layers, 2), -1.0)
    return _Model(builder.build(), column_NN, scale)


def _pairs(layers: int, experts: int) -> tuple[IntArray, IntArray]:
    """Return the pairs of nodes whose layers are at most two apart."""
    one_X, two_X = np.triu_indices(layers * experts, 1)
    near_X = two_X // experts - one_X // experts <= 2
    return one_X[near_X], two_X[near_X]


def _shared(model: _Model, values_V: FloatArray) -> FloatArray:
    shared_NN = values_V[np.maximum(0, model.column_NN)]
    shared_NN[model.column_NN < 0] = 0.0
    return shared_NN


def _violated(shared_NN: FloatArray, known_NN: BoolArray) -> IntArray:
    """Return the most violated triangles: two who share with one share a domain."""
    over, found = list[FloatArray](), list[IntArray]()
    for middle, shared_N in enumerate(shared_NN):
        beside = np.flatnonzero(shared_N > VIOLATED)
        sums_BB = shared_N[beside][:, None] + shared_N[beside][None] - 1
        over_BB = sums_BB - shared_NN[np.ix_(beside, beside)]
        open_BB = np.triu(known_NN[np.ix_(beside, beside)], 1) & (over_BB > VIOLATED)
        one, two = np.nonzero(open_BB)
        over.append(over_BB[one, two])
        middle_X = np.full(one.size, middle)
        found.append(np.stack([beside[one], middle_X, beside[two]], axis=1))
    most = np.argsort(-np.concatenate(over), kind="stable")[:CUTS]
    violated_T3: IntArray = np.concatenate(found)[most]
    return violated_T3


def _rounded(
    rows: list[_Ports],
    model: _Model,
    duals_R: FloatArray,
    triangles_T3: IntArray,
    ports: Ports,
) -> Chain:
    """Round the multipliers to shares of ``UNIT``; what they prove is what counts."""
    families, used_R = model.linear.families, np.zeros_like(duals_R)
    duals = {name: duals_R[index] for name, index in families.items()}
    share = _shares(rows, duals)
    layers: list[dict[str, Any]] = [
        {} for _ in range(1 + max(r.leg for r in rows) // 2)
    ]
    for each in rows:
        name = f"{each.name}_{each.leg}"
        used_R[families[name]] = share[name] / UNIT
        layers[each.leg // 2][each.name] = share[name].tolist()
    if "layers" in families:
        legs_2L = np.zeros((2, len(layers)))
        for each in rows:
            total = share[f"{each.name}_{each.leg}"].sum() / UNIT
            legs_2L[each.leg % 2, each.leg // 2] += total
        used_R[families["layers"]] = legs_2L.max(axis=0)
    unit = UNIT * model.scale
    seat_N, corner_T = (
        np.maximum(0, np.rint(-duals[name] * unit)) for name in ("seats", "triangles")
    )
    corner_T[corner_T < unit * 1e-9] = 0
    used_R[families["seats"]] = -seat_N / unit
    used_R[families["triangles"]] = -corner_T / unit
    corners = zip(
        triangles_T3.tolist(), corner_T.astype(np.int64).tolist(), strict=True
    )
    certificate = {
        "ports": [ports.inward, ports.outward],
        "unit": UNIT,
        "layers": layers,
        "seats": seat_N.astype(np.int64).reshape(len(layers), -1).tolist(),
        "triangles": [f"{u} {v} {w} {price}" for (u, v, w), price in corners if price],
    }
    value = model.linear.dual_bound(used_R) * model.scale * ports.rate
    return Chain(value, certificate)


def _shares(rows: list[_Ports], duals: dict[str, FloatArray]) -> dict[str, IntArray]:
    """Return each port's share of its leg in whole parts, together at most the whole.

    Under ``worst_layer`` the layers share one whole.
    """
    found: dict[str, IntArray] = {}
    shared = "layers" in duals
    for leg in sorted({each.leg for each in rows}):
        names = [f"{each.name}_{each.leg}" for each in rows if each.leg == leg]
        share_X = np.maximum(0.0, np.concatenate([duals[name] for name in names]))
        # Layers' sums must not exceed the whole either: all are rounded down.
        exact_X = share_X * UNIT
        whole_X = np.floor(exact_X * SURE) if shared else np.rint(exact_X)
        whole_X = whole_X.astype(np.int64)
        extra = int(whole_X.sum()) - UNIT
        if extra > 0:
            whole_X[int(whole_X.argmax())] -= extra
        ends = np.cumsum([duals[name].size for name in names])[:-1]
        found |= dict(zip(names, np.split(whole_X, ends), strict=True))
    return found
