"""The bound by every GPU's own port: below every placement, and proven again.

Tiny clusters with one expert per GPU altogether are enumerated.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.pipeline.certifying import certified_bound, evidence
from planner.plan import PlacementPlan
from planner.strategies.base import Bound, LayerBound, whole_bound
from planner.strategies.bounds import tighter
from planner.strategies.flow.bound import flow_bound
from planner.strategies.flow.chain import Chain, chain_bound
from planner.strategies.flow.flows import flows_of
from planner.strategies.flow.rates import gpu_port_rates
from planner.verifier.certificates import Evidence, chained
from planner.workload.parts import TokenPart
from tests.instances import instance

SHAPES = [([2, 2], 2), ([2, 2, 2], 2), ([3, 3], 2), ([3, 3], 3), ([4, 2], 3)]
"""GPUs by domain, experts of a layer."""


def single(
    shape: tuple[list[int], int], mode: str = "sequential", **given: Any
) -> PlacementInstance:
    """Return an instance with one expert per GPU altogether, a port per GPU."""
    domains, experts = shape
    fields = {"traffic": "direct", "tokens": 40, "top_k": 2, **given}
    layers = sum(domains) // experts
    made = instance(domains, experts=experts, slots=1, layers=layers, **fields)
    objective = replace(made.objective, layers=mode)  # type: ignore[arg-type]
    return replace(made, single=True, objective=objective)


def optimum(made: PlacementInstance) -> Fraction:
    """Return the least value of all ways to give every expert a GPU.

    GPUs of a domain are alike, so only who sits in which domain is enumerated.
    """
    layers, experts = made.layer_count, made.model.experts
    found = []
    for domain_N in sorted(set(permutations(made.layout.domain_G.tolist()))):
        order = np.argsort(domain_N, kind="stable")
        slots_LGJ = np.full((layers, layers * experts, 1), -1, dtype=np.int16)
        for gpu, place in enumerate(order.tolist()):
            slots_LGJ[place // experts, gpu, 0] = place % experts
        plan = PlacementPlan(layer_numbers=made.model.moe_layers, slots_LGJ=slots_LGJ)
        found.append(evaluate_planning(made, plan).value)
    return min(found)


def chain_of(made: PlacementInstance, known: float = 0.0) -> Chain | None:
    """Return the bound alone, other bounds aside."""
    part = made.planning
    assert isinstance(part, TokenPart)
    ports = gpu_port_rates(made)
    assert ports is not None
    flows = flows_of(part, made.layout, made.model.experts)
    return chain_bound(made, flows, ports, known)


def seen_of(made: PlacementInstance) -> list[Evidence]:
    """Return what the checker sees."""
    return [evidence(made, layer) for layer in range(made.layer_count)]


def proof_of(made: PlacementInstance, certificate: Mapping[str, Any]) -> Fraction:
    """Return what the checker proves."""
    return chained(certificate, seen_of(made), made.objective.layers)


@pytest.mark.parametrize("mode", ["sequential", "worst_layer"])
@pytest.mark.parametrize("objective", ["link_time", "link_tokens"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_placement_is_below_the_bound(
    shape: tuple[list[int], int], objective: str, mode: str
) -> None:
    """Law: bound = what the checker proves <= the best of all placements."""
    for seed, top_k in ((0, 2), (1, 1)):
        if top_k > shape[1]:
            continue
        made = single(shape, mode, objective=objective, seed=seed, top_k=top_k)
        found = chain_of(made)
        assert found is not None
        proven = proof_of(made, found.certificate)
        assert float(proven) == pytest.approx(found.value, rel=1e-9)
        assert 0 < proven <= optimum(made)


def test_the_better_of_both_bounds_counts() -> None:
    """The whole is at least what its layers prove; the checker agrees."""
    made = single(([3, 3], 2), seed=2)
    part = made.planning
    assert isinstance(part, TokenPart)
    bound = flow_bound(made, flows_of(part, made.layout, 2))
    assert bound.value >= sum(layer.value for layer in bound.layers)
    certified = certified_bound(made, bound)
    assert certified is not None
    assert float(certified) == pytest.approx(bound.value, rel=1e-9)
    assert certified <= optimum(made)


def test_a_better_bound_that_is_known_is_kept() -> None:
    """Where another bound is higher there is no chain."""
    made = single(([2, 2, 2], 2))
    found = chain_of(made)
    assert found is not None
    assert chain_of(made, known=found.value * 1.01) is None


def test_even_walks_are_proven_optimal_by_hand() -> None:
    """Four experts, two layers, domains of two, every (home, walk) once, top-1.

    An expert gets 32 of 128 tokens. From homes outside its domain come 3/4 of them,
    from tails other than the one beside it 3/4, and 3/4 go to homes elsewhere.
    """
    home, first, second = (axis.ravel() for axis in np.indices((8, 4, 4)))
    part = TokenPart(
        experts_LTK=np.stack([first, second])[:, :, None].astype(np.int16),
        source_T=home,
        rank_T=home,
        ordinal_T=np.zeros_like(home),
        row_T=np.arange(home.size),
    )
    made = single(([2, 2, 2, 2], 4), objective="link_tokens", top_k=1)
    made = replace(made, workloads=(replace(made.workloads[0], planning=part),))
    found = chain_of(made)
    assert found is not None
    each = home.size // 4
    by_hand = each * Fraction(3, 4) * 3
    assert proof_of(made, found.certificate) == by_hand


@pytest.mark.parametrize("mode", ["sequential", "worst_layer"])
def test_shares_beyond_the_whole_prove_nothing(mode: str) -> None:
    """Law: a leg may be given its weight once; a smaller unit is refused."""
    made = single(([3, 3], 2), mode, seed=1)
    found = chain_of(made)
    assert found is not None
    good = proof_of(made, found.certificate)
    assert good > 0
    less = {**found.certificate, "unit": found.certificate["unit"] // 2}
    assert proof_of(made, less) == 0
    more = deepcopy(found.certificate)
    more["layers"][1]["into"][0] += more["unit"]
    assert proof_of(made, more) == 0
    dear = deepcopy(found.certificate)
    dear["seats"][0][0] += 10**9
    assert proof_of(made, dear) < good


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", [{}]),
        ("seats", [[1, 2]]),
        ("triangles", ["0 1 9 5"]),
        ("triangles", ["0 1 0 5"]),
        ("triangles", ["0 1 2 -5"]),
        ("ports", ["no:such>class", "ib:nic>switch0"]),
    ],
)
def test_what_does_not_fit_is_refused_or_proves_nothing(field: str, value: Any) -> None:
    """Law: too few layers or another class of links: 0; no such node: an error."""
    made = single(([3, 3], 3), seed=1)
    found = chain_of(made)
    assert found is not None
    changed = {**found.certificate, field: value}
    if field in ("layers", "ports"):
        assert proof_of(made, changed) == 0
        return
    with pytest.raises((ValueError, IndexError)):
        proof_of(made, changed)


def test_it_proves_nothing_of_other_layouts_or_traffic() -> None:
    """Law: only for ``direct`` with one expert per GPU altogether."""
    made = single(([3, 3], 3), seed=1)
    found = chain_of(made)
    assert found is not None
    assert proof_of(replace(made, single=False), found.certificate) == 0
    home = single(([3, 3], 3), seed=1, traffic="copies")
    assert proof_of(home, found.certificate) == 0
    seen = seen_of(made)
    assert chained(found.certificate, seen, "pipelined") == 0


Prices = st.lists(st.integers(0, 40), min_size=2, max_size=2)
Layer = st.fixed_dictionaries(
    {name: Prices for name in ("into", "out", "back_into", "back_out")}
)
Corners = st.lists(
    st.tuples(st.permutations(range(6)), st.integers(0, 400)).map(
        lambda drawn: " ".join(str(each) for each in (*drawn[0][:3], drawn[1]))
    ),
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(
    layers=st.lists(Layer, min_size=3, max_size=3),
    seats=st.lists(
        st.lists(st.integers(0, 300), min_size=2, max_size=2), min_size=3, max_size=3
    ),
    triangles=Corners,
    mode=st.sampled_from(["sequential", "worst_layer"]),
)
def test_no_multipliers_prove_more_than_is_true(
    layers: list[dict[str, list[int]]],
    seats: list[list[int]],
    triangles: list[str],
    mode: str,
) -> None:
    """Law: whatever is offered, scaled to the whole, is at most the optimum."""
    made = single(([3, 3], 2), mode, objective="link_tokens", seed=4, tokens=20)
    if mode not in KNOWN:
        KNOWN[mode] = optimum(made)
    legs = [
        max(sum(each["into"] + each["out"]), sum(each["back_into"] + each["back_out"]))
        for each in layers
    ]
    offered = {
        "ports": ["ib:switch0>nic", "ib:nic>switch0"],
        "unit": max(1, sum(legs) if mode == "worst_layer" else max(legs)),
        "layers": layers,
        "seats": seats,
        "triangles": triangles,
    }
    assert proof_of(made, offered) <= KNOWN[mode]


KNOWN: dict[str, Fraction] = {}
"""Optima of the instances above, enumerated once."""


def test_a_proof_of_the_whole_outlives_better_layers() -> None:
    """Law: the better bound of every layer, or the whole that is proven at once."""
    layer = LayerBound(value=2.0, method="walks", of="direct/nearest")
    one = Bound(value=5.0, layers=(layer, layer), chain={"unit": 1})
    other = whole_bound((replace(layer, value=2.25), layer), "sequential")
    for pair in ((one, other), (other, one)):
        found = tighter(*pair, "sequential")
        assert found.value == 5.0
        assert found.chain == {"unit": 1}
        assert [each.value for each in found.layers] == [2.25, 2.0]
    more = whole_bound((replace(layer, value=4.0), layer), "sequential")
    assert tighter(one, more, "sequential") == more
