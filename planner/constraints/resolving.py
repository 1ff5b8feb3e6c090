"""From the words of a constraints file to ranks, experts and layers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.arrays import IdArray
from planner.constraints.document import (
    Apart,
    Placed,
    Previous,
    check_document,
    previous_document,
)
from planner.constraints.rules import PlacementConstraints, Rule
from planner.errors import InputError
from planner.topology.graph import ClusterTopology

SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the words refer to."""

    topology: ClusterTopology
    ep: int
    experts: int
    layer_numbers: tuple[int, ...]


def resolve(
    ground: Ground,
    document: Mapping[str, Any] | None,
    previous: Mapping[str, Any] | None,
    max_moves: int | None,
) -> PlacementConstraints | None:
    """Return the constraints on this cluster and model; None if there are none.

    Raises
    ------
    InputError
        If a name, expert or layer is not there.
    """
    if document is None and previous is None:
        return None
    words = check_document(document or {})
    rules = [
        _placed(ground, kind, index, entry)
        for kind, entries in (("pins", words.pins), ("forbidden", words.forbidden))
        for index, entry in enumerate(entries)
    ]
    rules += [_apart(ground, index, entry) for index, entry in enumerate(words.apart)]
    before_LGJ = new_LRE = None
    if previous is not None:
        before_LGJ = _before(ground, previous_document(previous))
        new_LRE = _new(ground, before_LGJ)
    return PlacementConstraints(
        shape=(len(ground.layer_numbers), ground.ep, ground.experts),
        rules=tuple(rules),
        new_LRE=new_LRE,
        before_LGJ=None if before_LGJ is None else before_LGJ[:, : ground.ep],
        max_moves=max_moves,
    )


def _placed(ground: Ground, kind: str, index: int, entry: Placed) -> Rule:
    where = f"constraints/{kind}/{index}"
    experts, layers = _bound(ground, where, entry.experts, entry.layers)
    gpus = [gpu for name in entry.at for gpu in _gpus(ground.topology, where, name)]
    needs = "need a copy on" if kind == "pins" else "may have no copy on"
    return Rule(
        kind=kind,
        experts=experts,
        layers=layers,
        ranks=tuple(sorted({gpu % ground.ep for gpu in gpus})),
        says=f"{kind}/{index}: experts {_few(experts)} {needs} {_few(entry.at)}",
    )


def _apart(ground: Ground, index: int, entry: Apart) -> Rule:
    where = f"constraints/apart/{index}"
    chosen = entry.experts or range(ground.experts)
    experts, layers = _bound(ground, where, chosen, entry.layers)
    names = labels(ground.topology, entry.by, f"{where}/by")
    number = {name: at for at, name in enumerate(dict.fromkeys(names))}
    label_G = [number[name] for name in names]
    whose = f"experts {_few(experts)}" if entry.experts else "every expert"
    return Rule(
        kind="apart",
        experts=experts,
        layers=layers,
        labels=tuple(
            tuple(label_G[start : start + ground.ep])
            for start in range(0, len(label_G), ground.ep)
        ),
        says=f"apart/{index}: copies of {whose} lie in different {entry.by}s",
    )


def _bound(
    ground: Ground,
    where: str,
    experts: Iterable[int],
    layers: Sequence[int] | None,
) -> tuple[tuple[int, ...], frozenset[int]]:
    """Return the experts, and the layers by index."""
    chosen = tuple(dict.fromkeys(experts))
    for expert in chosen:
        if expert >= ground.experts:
            raise InputError(
                f"is no expert; the model has experts 0 to {ground.experts - 1}",
                where=f"{where}/experts",
                value=expert,
            )
    numbers = ground.layer_numbers
    for layer in layers or ():
        if layer not in numbers:
            raise InputError(
                f"is no MoE layer of the model ({numbers[0]} to {numbers[-1]})",
                where=f"{where}/layers",
                value=layer,
            )
    wanted = numbers if layers is None else layers
    return chosen, frozenset(numbers.index(layer) for layer in wanted)


def _gpus(topology: ClusterTopology, where: str, name: str) -> list[int]:
    """Return the GPUs of a name: an id, or ``key=value``."""
    ids = [gpu.id for gpu in topology.gpus]
    if name in ids:
        return [ids.index(name)]
    key, equals, value = name.partition("=")
    if not equals:
        raise InputError(
            "is no GPU of the cluster",
            where=f"{where}/at",
            value=name,
            fix=f"name a GPU ({_few(ids)}) or host=, domain= or a failure domain",
        )
    found = labels(topology, key, f"{where}/at")
    if value not in found:
        known = _few(list(dict.fromkeys(found)))
        raise InputError(
            f"names no GPU; {key}s here: {known}", where=f"{where}/at", value=name
        )
    return [gpu for gpu, label in enumerate(found) if label == value]


def labels(topology: ClusterTopology, key: str, where: str) -> list[str]:
    """Return every GPU's host, scale-up domain or failure domain of this tag.

    A domain is called by its GPUs' ``nvlink_domain``, else by its number from 0.

    Raises
    ------
    InputError
        If a GPU has no such tag.
    """
    nodes, hosts = topology.graph.nodes, topology.graph.graph.get("hosts", {})
    found = []
    for gpu, number in zip(topology.gpus, topology.domain_G.tolist(), strict=True):
        node, host = nodes[gpu.id], hosts.get(gpu.host, {})
        if key == "host":
            found.append(gpu.host)
        elif key == "domain":
            found.append(str(node.get("nvlink_domain", number)))
        else:
            tags = {**host.get("failure_domains", {}), **node["failure_domains"]}
            if key not in tags:
                raise InputError(
                    f"GPU {gpu.id} has no failure domain of this tag",
                    where=where,
                    value=key,
                    fix="use host or domain, or give it in the topology "
                    "(graph.hosts.<host>.failure_domains)",
                )
            found.append(str(tags[key]))
    return found


def _before(ground: Ground, previous: Previous) -> IdArray:
    """Return what each GPU held, [L, G, slots then]; a new GPU held nothing."""
    rows = {row.layer: row.slots for row in previous.layers}
    missing = [layer for layer in ground.layer_numbers if layer not in rows]
    if missing:
        raise InputError(
            "has no layer of this number", where="previous", value=missing[0]
        )
    width = max(len(held) for slots in rows.values() for held in slots)
    place = {gpu: index for index, gpu in enumerate(previous.gpus)}
    shape = (len(ground.layer_numbers), ground.topology.gpu_count, width)
    before_LGJ = np.full(shape, -1, dtype=np.int16)
    for layer, number in enumerate(ground.layer_numbers):
        slots = rows[number]
        for gpu, each in enumerate(ground.topology.gpus):
            if each.id in place:
                held = slots[place[each.id] % len(slots)]
                before_LGJ[layer, gpu, : len(held)] = held
    if before_LGJ.max() >= ground.experts:
        raise InputError(
            f"is no expert; the model has experts 0 to {ground.experts - 1}",
            where="previous",
            value=int(before_LGJ.max()),
        )
    return before_LGJ


def _new(ground: Ground, before_LGJ: IdArray) -> IdArray:
    """Return how many GPUs of each EP rank did not hold an expert, [L, R, E]."""
    layers, gpus, _ = before_LGJ.shape
    new_LGE = np.ones((layers, gpus, ground.experts), dtype=np.int16)
    layer, gpu, slot = np.nonzero(before_LGJ >= 0)
    new_LGE[layer, gpu, before_LGJ[layer, gpu, slot]] = 0
    by_set = new_LGE.reshape(layers, -1, ground.ep, ground.experts)
    new_LRE: IdArray = by_set.sum(axis=1).astype(np.int16)
    return new_LRE


def _few(values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:SHOWN])
    more = len(values) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
