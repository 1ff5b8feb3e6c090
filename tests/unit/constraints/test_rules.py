"""The rules of a layer: against words counted out, and compiled against both."""

import random
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from numba import njit

from planner.constraints import Ground, PlacementConstraints, resolve
from planner.errors import InputError
from planner.instance import PlacementInstance
from planner.strategies.legal import cheapest
from planner.strategies.search.layer import problem_of, served_state
from planner.strategies.search.legality import begin, is_legal, rules_of
from planner.strategies.search.tokens import tokens_of
from planner.topology.schema import load_topology
from tests.instances import cluster, instance

Held = list[set[int]]


def constrained(made: PlacementInstance, **given: Any) -> PlacementInstance:
    """Return an instance with constraints in the words of a file."""
    ground = Ground(
        topology=made.topology,
        ep=made.layout.ep,
        experts=made.model.experts,
        layer_numbers=made.model.moe_layers,
    )
    previous, most = given.pop("previous", None), given.pop("max_moves", None)
    found = resolve(ground, given, previous, most)
    return replace(made, constraints=found)


def kept(held: Held, document: dict[str, Any], hosts: list[str]) -> bool:
    """Say from the words alone whether GPUs g0, g1, … of hosts keep a document."""

    def at(names: list[str]) -> list[int]:
        pairs = enumerate(hosts)
        return [g for g, host in pairs if f"host={host}" in names or f"g{g}" in names]

    for entry in document.get("pins", ()):
        for expert in entry["experts"]:
            if not any(expert in held[gpu] for gpu in at(entry["at"])):
                return False
    for entry in document.get("forbidden", ()):
        for expert in entry["experts"]:
            if any(expert in held[gpu] for gpu in at(entry["at"])):
                return False
    for entry in document.get("apart", ()):
        for expert in entry["experts"]:
            where = [hosts[g] for g, each in enumerate(held) if expert in each]
            if len(where) > len(set(where)):
                return False
    return True


def random_document(rng: random.Random, hosts: list[str], experts: int) -> Any:
    """Draw one or two entries of every kind, or none."""
    names = [f"g{g}" for g in range(len(hosts))] + [f"host={h}" for h in set(hosts)]
    names.sort()

    def some(values: list[Any], most: int) -> list[Any]:
        return rng.sample(values, rng.randint(1, most))

    every = list(range(experts))
    return {
        kind: [
            {"experts": some(every, 2)}
            | ({"by": "host"} if kind == "apart" else {"at": some(names, 2)})
            for _ in range(rng.randint(0, 2))
        ]
        for kind in ("pins", "forbidden", "apart")
    }


def named(hosts: list[str]) -> dict[str, Any]:
    """Return a cluster whose GPUs are called g0, g1, …."""
    data = cluster([hosts.count(host) for host in dict.fromkeys(hosts)])
    ids = [node["id"] for node in data["nodes"] if node["kind"] == "gpu"]
    short = {gpu: f"g{at}" for at, gpu in enumerate(ids)}
    for node in data["nodes"]:
        node["id"] = short.get(node["id"], node["id"])
    for edge in data["edges"]:
        for end in ("source", "target"):
            edge[end] = short.get(edge[end], edge[end])
    return data


HOSTS = ["h0", "h0", "h1", "h1"]


def ground(experts: int) -> Ground:
    topology = load_topology(named(HOSTS))
    return Ground(topology=topology, ep=4, experts=experts, layer_numbers=(0,))


@pytest.mark.parametrize("seed", range(60))
def test_slots_keep_a_document_as_its_words_say_and_exist_if_any_do(seed: int) -> None:
    """All slots of 4 GPUs: the check agrees, and the model finds some if there are."""
    rng = random.Random(seed)
    experts, slots = rng.choice([(4, 1), (4, 2), (5, 2), (3, 1)])
    document = random_document(rng, HOSTS, experts)
    constraints = resolve(ground(experts), document, None, None)
    assert constraints is not None
    rules, possible = constraints.layers[0], False
    for held in product(combinations(range(experts), slots), repeat=4):
        expected = kept([set(each) for each in held], document, HOSTS)
        assert rules.keeps(np.asarray(held, dtype=np.int16)) == expected
        possible = possible or (expected and len(set().union(*held)) == experts)
    found = cheapest(rules, slots, np.zeros((4, experts)))
    assert (found is not None) == possible
    if found is not None:
        held_sets = [set(np.flatnonzero(row).tolist()) for row in found]
        assert kept(held_sets, document, HOSTS)


@njit
def legal(rules: Any, state: Any, move: Any) -> Any:
    """Call compiled code from Python."""
    return is_legal(rules, state, move)


def test_a_compiled_move_is_legal_where_its_slots_keep_the_rules() -> None:
    """Every swap and every new copy of legal random states, moves included."""
    rng = random.Random(7)
    made = instance([2, 2], experts=5, slots=2, tokens=40)
    before = {
        "gpus": [gpu.id for gpu in made.topology.gpus],
        "layers": [{"layer": 0, "slots": [[0, 1], [2, 3], [3, 4], [4, 0]]}],
    }
    seen = set()
    for _ in range(12):
        document = random_document(rng, ["h0"], 5)
        for entry in (*document["pins"], *document["forbidden"]):
            entry["at"] = [rng.choice(["host=h0", "h1/g0", "host=h1"])]
        asked = constrained(made, **document, previous=before, max_moves=9)
        assert asked.constraints is not None
        asked = replace(asked, constraints=asked.constraints.shared_out([5]))
        seen |= _agreements(asked, rng)
    assert seen == {True, False}


def _agreements(asked: PlacementInstance, rng: random.Random) -> set[bool]:
    """Compare all moves from legal states; return the verdicts met."""
    assert asked.constraints is not None
    rules = asked.constraints.layers[0]
    tokens, compiled = tokens_of(asked, 0, 3), rules_of(asked, 0)
    network, seen = problem_of(asked).exact, set()
    for _ in range(200):
        slots = [rng.sample(range(5), 2) for _ in range(4)]
        slots_GJ = np.asarray(slots, dtype=np.int16)
        if len(np.unique(slots_GJ)) < 5 or not rules.keeps(slots_GJ):
            continue
        state = served_state(network, tokens, slots_GJ)
        begin(compiled, slots_GJ)
        for gpu, slot, far, place in product(
            range(4), range(2), range(-1, 4), range(2)
        ):
            after_GJ, one = slots_GJ.copy(), int(slots_GJ[gpu, slot])
            two = rng.randrange(5) if far < 0 else int(slots_GJ[far, place])
            after_GJ[gpu, slot] = two
            if far >= 0:
                after_GJ[far, place] = one
            twice = any(len(set(row)) < 2 for row in after_GJ.tolist())
            missing = len(np.unique(after_GJ)) < 5
            if far == gpu or one == two or twice or missing:
                continue
            move = (gpu, slot, two, far, place, one)
            expected = rules.keeps(after_GJ)
            assert legal(compiled, state, move) == expected
            seen.add(expected)
    return seen


def test_layers_and_failure_domains_are_those_named() -> None:
    """A rule binds its layers only; a tag is the GPU's own before its host's."""
    data = named(HOSTS)
    data["graph"]["hosts"] = {
        host: {"failure_domains": {"rack": "a"}} for host in ("h0", "h1")
    }
    nodes = {node["id"]: node for node in data["nodes"]}
    nodes["g3"]["failure_domains"] = {"rack": "b"}
    where = Ground(topology=load_topology(data), ep=4, experts=4, layer_numbers=(3, 5))
    words = {
        "pins": [{"experts": [2], "at": ["rack=b"], "layers": [5]}],
        "apart": [{"by": "rack"}],
    }
    found = resolve(where, words, None, None)
    assert found is not None
    assert found.layers[0].pin_P.tolist() == []
    assert found.layers[1].pin_PR.tolist() == [[False, False, False, True]]
    assert found.layers[0].label_KR.tolist() == [[0, 0, 0, 1]]


def test_moves_are_experts_that_a_gpu_did_not_hold() -> None:
    """Rule 27, by GPU: a new GPU's experts all moved, two EP sets count twice."""
    topology = load_topology(named(HOSTS))
    where = Ground(topology=topology, ep=2, experts=2, layer_numbers=(0,))
    before = {
        "gpus": ["g0", "g1", "g2"],
        "layers": [{"layer": 0, "slots": [[0], [1], [0]]}],
    }
    found = resolve(where, None, before, None)
    assert isinstance(found, PlacementConstraints)
    assert found.layers[0].new_RE.tolist() == [[0, 2], [2, 1]]
    assert found.layers[0].moves(np.asarray([[0], [1]])) == 1


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"pin": []}, "constraints/pin"),
        ({"pins": [{"experts": [0]}]}, "pins/0/at"),
        ({"pins": [{"experts": ["0"], "at": ["g0"]}]}, "pins/0/experts/0"),
        ({"pins": [{"experts": [4], "at": ["g0"]}]}, "experts 0 to 3"),
        ({"pins": [{"experts": [0], "at": ["g9"]}]}, "is no GPU"),
        ({"pins": [{"experts": [0], "at": ["host=h9"]}]}, "hosts here: h0, h1"),
        ({"pins": [{"experts": [0], "at": ["g0"], "layers": [1]}]}, "no MoE layer"),
        ({"apart": [{"by": "rack"}]}, "no failure domain of this tag"),
    ],
)
def test_words_that_mean_nothing_here_are_refused(
    document: dict[str, Any], says: str
) -> None:
    """One error that names the place."""
    with pytest.raises(InputError, match=says):
        resolve(ground(4), document, None, None)
