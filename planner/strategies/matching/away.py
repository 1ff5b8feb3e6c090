"""The least that a layer takes if some domain lacks an expert.

Proof. Let N domains of E GPUs hold one expert each, and domain D lack expert e. All
its n tokens that choose e are served by the m copies outside D, through the network
ports of at most m GPUs. A domain with k copies of one expert lacks at least k − 1
others, so that with e in D at least M = 1 + max(0, m − (N − 1)) pairs of domain and
expert are missing in all: their tokens leave their domains through the ports of all
GPUs. Neither depends on which copies serve, so the larger of both bounds a leg, and
the smallest sum of both legs over m bounds the layer.
"""

from dataclasses import dataclass
from fractions import Fraction

from planner.arrays import IntArray
from planner.instance import PlacementInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPorts:
    """Bytes per second that leave and enter each GPU through its NICs."""

    out_G: tuple[Fraction, ...]
    in_G: tuple[Fraction, ...]


def network_ports(instance: PlacementInstance) -> NetworkPorts | None:
    """Return every GPU's ports; None if a far transfer passes by them."""
    ports = [
        [_port(instance, gpu, entering=entering) for gpu in range(len(domain_G))]
        for domain_G in (instance.layout.domain_G,)
        for entering in (False, True)
    ]
    out_G, in_G = ([rate for rate in side if rate is not None] for side in ports)
    if len(out_G) + len(in_G) < 2 * instance.layout.gpu_count:
        return None
    return NetworkPorts(out_G=tuple(out_G), in_G=tuple(in_G))


def _port(instance: PlacementInstance, gpu: int, *, entering: bool) -> Fraction | None:
    """Return the rate of the NIC links that all of a GPU's far transfers use."""
    links, q = instance.topology.links, instance.routes.q
    domain_G = instance.layout.domain_G
    used: set[int] = set()
    for other in range(len(domain_G)):
        if domain_G[other] == domain_G[gpu]:
            continue
        ends = (other, gpu) if entering else (gpu, other)
        carried = 0
        for link, numerator in zip(*instance.routes.pair(*ends), strict=True):
            if _is_nic_link(links[link].link_class, entering=entering):
                used.add(int(link))
                carried += int(numerator)
        if carried != q:
            return None
    return sum((links[link].bytes_per_s for link in used), Fraction(0))


def _is_nic_link(link_class: str, *, entering: bool) -> bool:
    """Whether links of this class go from a switch to a NIC, or back."""
    start, _, end = link_class.partition(":")[2].partition(">")
    near, far = (end, start) if entering else (start, end)
    return near == "nic" and far.startswith("switch")


def least_away(
    instance: PlacementInstance, ports: NetworkPorts, demand_SE: IntArray
) -> Fraction:
    """Return a lower bound of a layer's seconds if a domain lacks an expert."""
    domains = instance.layout.cell_members
    chosen = [demand_SE[list(gpus)].sum(axis=0).tolist() for gpus in domains]
    pairs = sorted(count for counts in chosen for count in counts)
    every = sum(ports.out_G, Fraction(0)), sum(ports.in_G, Fraction(0))
    return min(
        _least_of(instance, min(counts), pairs, (_outside(ports, gpus), every))
        for gpus, counts in zip(domains, chosen, strict=True)
    )


def _outside(
    ports: NetworkPorts, gpus: tuple[int, ...]
) -> tuple[list[Fraction], list[Fraction]]:
    """Return rates into and out of the GPUs elsewhere, the fastest first."""
    elsewhere = [gpu for gpu in range(len(ports.in_G)) if gpu not in gpus]
    into = sorted((ports.in_G[gpu] for gpu in elsewhere), reverse=True)
    back = sorted((ports.out_G[gpu] for gpu in elsewhere), reverse=True)
    return into, back


def _least_of(
    instance: PlacementInstance,
    tokens: int,
    pairs: list[int],
    rates: tuple[tuple[list[Fraction], list[Fraction]], tuple[Fraction, Fraction]],
) -> Fraction:
    """Return the least over the number m of copies outside."""
    domains = len(instance.layout.cell_members)
    served, every = rates
    zero, values = Fraction(0), []
    for copies in range(1, len(served[0]) + 1):
        missing = sum(pairs[: 1 + max(0, copies - (domains - 1))])
        legs = [
            size * max(tokens / sum(served[leg][:copies], zero), missing / every[leg])
            for leg, size in enumerate(instance.message_bytes)
        ]
        values.append(sum(legs, zero))
    return min(values)
