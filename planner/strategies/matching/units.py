"""What is matched, and what each place costs.

A *unit* is a set of positions that hold every expert once: a domain of the only EP
set, or the positions of all EP sets together. Nothing leaves a domain, so the load
of a link depends on one GPU's expert, and a leg takes as long as the costliest place.

Axes: E experts and as many positions, S home GPUs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from planner.arrays import IntArray
from planner.instance import PlacementInstance

Unit = tuple[tuple[int, ...], ...]
"""By position its GPUs: one per EP set."""
Use = tuple[int, int, int]
"""Home GPU, computing GPU, and numerator over Q of what their transfer puts on."""


class SharedLinkError(Exception):
    """A link's load depends on the experts of several GPUs; names the link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """What a GPU's expert puts on one link, in ``seconds`` per pair and numerator.

    The link carries the transfers of ``homes`` (GPU, numerator) with the GPU; None:
    those of the GPU's own tokens with all others, alike.
    """

    seconds: Fraction
    homes: tuple[tuple[int, int], ...] | None


def units_of(instance: PlacementInstance) -> tuple[Unit, ...]:
    """Return the units; empty where a domain cannot hold every expert once."""
    layout, experts = instance.layout, instance.model.experts
    cells = layout.cell_members
    if instance.slots_per_gpu != 1 or any(len(cell) != experts for cell in cells):
        return ()
    if layout.sets == 1:
        return tuple(tuple((gpu,) for gpu in cell) for cell in cells)
    return (tuple(zip(*cells, strict=True)),) if layout.ep == experts else ()


def ports_of(instance: PlacementInstance, leg: int) -> list[list[Port]]:
    """Return the ports of every GPU in a leg (0 dispatch, 1 combine).

    Raises
    ------
    SharedLinkError
        If some link is nobody's port.
    """
    topology, q = instance.topology, instance.routes.q
    ports: list[list[Port]] = [[] for _ in topology.gpus]
    for cell in instance.layout.cell_members:
        for index, uses in _uses(instance, cell, leg).items():
            link = topology.links[index]
            second = Fraction(instance.message_bytes[leg]) / (q * link.bytes_per_s)
            gpus, homes = {use[1] for use in uses}, {use[0] for use in uses}
            numerators = {use[2] for use in uses}
            if len(gpus) == 1:
                parts = tuple((home, numerator) for home, _, numerator in uses)
                ports[uses[0][1]].append(Port(seconds=second, homes=parts))
            elif len(homes) == len(numerators) == 1 and len(uses) == len(cell) - 1:
                alike = Port(seconds=second * uses[0][2], homes=None)
                ports[uses[0][0]].append(alike)
            else:
                raise SharedLinkError(link.name)
    return ports


def _uses(
    instance: PlacementInstance, cell: Sequence[int], leg: int
) -> Mapping[int, list[Use]]:
    """Return by link the pairs of a domain whose transfers it carries."""
    uses: dict[int, list[Use]] = {}
    for home in cell:
        for gpu in cell:
            if home == gpu:
                continue
            ends = (gpu, home) if leg else (home, gpu)
            links, numerators = instance.routes.pair(*ends)
            for link, numerator in zip(links, numerators, strict=True):
                uses.setdefault(int(link), []).append((home, gpu, int(numerator)))
    return uses


def costs_of(
    unit: Unit, ports: Sequence[Sequence[Port]], demand_SE: IntArray
) -> list[list[Fraction]]:
    """Return the seconds of a position's busiest port, by expert and position."""
    sent_S = demand_SE.sum(axis=1).tolist()
    return [
        [
            max(
                _seconds(port, gpu, pairs_S, sent_S)
                for gpu in gpus
                for port in ports[gpu]
            )
            for gpus in unit
        ]
        for pairs_S in demand_SE.T.tolist()
    ]


def _seconds(
    port: Port, gpu: int, pairs_S: Sequence[int], sent_S: Sequence[int]
) -> Fraction:
    """Return a port's seconds if the GPU holds an expert that homes send pairs to."""
    if port.homes is None:
        return port.seconds * (sent_S[gpu] - pairs_S[gpu])
    return port.seconds * sum(share * pairs_S[home] for home, share in port.homes)
