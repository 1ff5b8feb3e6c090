"""Do the slots keep the constraints that the manifest records (docs/constraints.md)?

GPU by GPU, from the words of the recorded document.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from planner.errors import ManifestError
from planner.manifest import Manifest
from planner.topology.graph import ClusterTopology
from planner.verifier.ledger import Ledger
from planner.verifier.options import recorded_options

Held = Mapping[str, set[int]]
"""Experts of every GPU in a layer."""


def check_constraints(
    manifest: Manifest, topology: ClusterTopology, ledger: Ledger
) -> None:
    """Check pins, forbidden GPUs, copies apart and moves.

    Raises
    ------
    ManifestError
        If the recorded document has not the shape of one.
    """
    options = recorded_options(manifest)
    held = {
        layer.layer: {
            gpu: set(layer.slots[index % len(layer.slots)])
            for index, gpu in enumerate(manifest.gpus)
        }
        for layer in manifest.layers
    }
    ep = manifest.groups.ep
    sets = [manifest.gpus[at : at + ep] for at in range(0, len(manifest.gpus), ep)]
    try:
        for kind, entries in (options.constraints or {}).items():
            for entry in entries:
                _check_entry(kind, entry, held, sets, topology, ledger)
        if options.previous is not None:
            _check_moves(options.previous, options.max_moves, held, ledger)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ManifestError(
            f"do not have the shape of constraints: {error!r}",
            where="/inputs/options/values/constraints",
            fix="plan again",
        ) from error


def _check_entry(
    kind: str,
    entry: Mapping[str, Any],
    held: Mapping[int, Held],
    sets: list[tuple[str, ...]],
    topology: ClusterTopology,
    ledger: Ledger,
) -> None:
    """Check one entry in every layer that it binds."""
    for number in entry.get("layers") or held:
        layer = held[number]
        experts = entry.get("experts") or sorted(set().union(*layer.values()))
        if kind == "apart":
            label = {gpu: _label(topology, gpu, entry["by"]) for gpu in layer}
            for expert in experts:
                for gpus in sets:
                    seen = [label[gpu] for gpu in gpus if expert in layer[gpu]]
                    ledger.expect(
                        "copies apart",
                        len(seen) == len(set(seen)),
                        f"layer {number}: copies of expert {expert} share a "
                        f"{entry['by']}",
                    )
            continue
        places = {gpu for name in entry["at"] for gpu in _named(topology, layer, name)}
        for expert in experts:
            there = any(expert in layer[gpu] for gpu in places)
            ledger.expect(
                {"pins": "pins", "forbidden": "forbidden GPUs"}[kind],
                there == (kind == "pins"),
                f"layer {number}: expert {expert} has {'a' if there else 'no'} copy "
                f"on {', '.join(entry['at'])}",
            )


def _named(topology: ClusterTopology, layer: Held, name: str) -> Iterator[str]:
    """Go through the GPUs of a name: an id, or ``key=value``."""
    if name in layer:
        yield name
        return
    key, _, value = name.partition("=")
    for gpu in layer:
        if _label(topology, gpu, key) == value:
            yield gpu


def _label(topology: ClusterTopology, gpu: str, key: str) -> str:
    """Return a GPU's host, scale-up domain or failure domain."""
    index = next(at for at, each in enumerate(topology.gpus) if each.id == gpu)
    node, host = topology.graph.nodes[gpu], topology.gpus[index].host
    if key == "host":
        return host
    if key == "domain":
        return str(node.get("nvlink_domain", topology.domain_G[index]))
    own = node["failure_domains"].get(key)
    whole = topology.graph.graph.get("hosts", {}).get(host, {})
    return str(whole["failure_domains"][key] if own is None else own)


def _check_moves(
    previous: Mapping[str, Any],
    most: int | None,
    held: Mapping[int, Held],
    ledger: Ledger,
) -> None:
    """Count the experts that GPUs hold now and did not before (rule 27)."""
    before = {row["layer"]: row["slots"] for row in previous["layers"]}
    place = {gpu: index for index, gpu in enumerate(previous["gpus"])}
    moved = 0
    for number, layer in held.items():
        slots = before[number]
        for gpu, experts in layer.items():
            had = slots[place[gpu] % len(slots)] if gpu in place else ()
            moved += len(experts - set(had))
    ledger.expect(
        "moves",
        most is None or moved <= most,
        f"{moved} experts moved from the previous plan, {most} were allowed",
    )
