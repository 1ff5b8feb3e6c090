"""Which domain holds which expert, so that no layer exceeds its bound.

An expert is *critical* if some domain would make it exceed its layer's bound, the
largest of the experts' least costs. Critical experts choose first, those with the
fewest domains before the others; the rest of a layer fills the domains with most room.
A layer uses a domain once as long as it can, so that its experts share no port.
"""

from dataclasses import dataclass

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray

CLOSE = 1 + 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wish:
    """A critical expert: the domains it may go to, and what it costs in each."""

    layer: int
    expert: int
    domains: IntArray
    cost: FloatArray


def wishes(layer: int, cost_EN: FloatArray) -> tuple[float, list[Wish]]:
    """Return a layer's bound and its critical experts."""
    bound = float(cost_EN.min(axis=1).max(initial=0.0))
    allowed_EN = cost_EN <= bound * CLOSE
    critical = np.flatnonzero(~allowed_EN.all(axis=1))
    found = []
    for expert in critical.tolist():
        domains = np.flatnonzero(allowed_EN[expert])
        cost = cost_EN[expert, domains]
        found.append(Wish(layer=layer, expert=expert, domains=domains, cost=cost))
    return bound, found


class Board:
    """Free GPUs by domain, and which layers use a domain already."""

    def __init__(self, layers: int, experts: int, room_N: IntArray) -> None:
        self.room_N = room_N.copy()
        self.domain_LE = np.full((layers, experts), -1, dtype=np.int64)
        self._count_LN = np.zeros((layers, room_N.size), dtype=np.int64)
        self._fixed_LE: BoolArray = np.zeros((layers, experts), dtype=np.bool_)

    def grant(self, wish: Wish) -> bool:
        """Give a critical expert its cheapest domain with room; False if all are full.

        Domains that its layer does not use yet come first.
        """
        room = self.room_N[wish.domains]
        unused = self._count_LN[wish.layer, wish.domains] == 0
        for usable in ((room > 0) & unused, room > 0):
            if usable.any():
                order = np.lexsort((-room, wish.cost))
                place = order[usable[order]][0]
                self.put(wish.layer, wish.expert, int(wish.domains[place]))
                self._fixed_LE[wish.layer, wish.expert] = True
                return True
        return False

    def put(self, layer: int, expert: int, domain: int) -> None:
        """Place an expert."""
        self.domain_LE[layer, expert] = domain
        self.room_N[domain] -= 1
        self._count_LN[layer, domain] += 1

    def fill(self, layer: int, cost_EN: FloatArray) -> None:
        """Place the rest of a layer on the roomiest domains, costly experts first."""
        left = np.flatnonzero(self.domain_LE[layer] < 0)
        order = left[np.argsort(-cost_EN[left].max(axis=1), kind="stable")]
        chosen = self._roomiest(layer, left.size)
        free = np.ones(chosen.size, dtype=np.bool_)
        for expert in order.tolist():
            cost = np.where(free, cost_EN[expert, chosen], np.inf)
            place = int(np.argmin(cost))
            free[place] = False
            self.put(layer, expert, int(chosen[place]))

    def _roomiest(self, layer: int, count: int) -> IntArray:
        """Domains for so many experts, each as often as it is taken."""
        room_N, used_N = self.room_N.copy(), self._count_LN[layer] > 0
        chosen: list[int] = []
        while len(chosen) < count:
            order = np.lexsort((-room_N, used_N))
            round_N = order[(room_N[order] > 0)][: count - len(chosen)]
            fresh = round_N[~used_N[round_N]]
            taken = fresh if fresh.size else round_N
            chosen.extend(taken.tolist())
            room_N[taken] -= 1
            used_N[taken] = True
        return np.asarray(chosen, dtype=np.int64)

    def mend(self) -> None:
        """Exchange experts of layers so that fewer share a domain with their own."""
        for layer, expert in self._crowded():
            domain = int(self.domain_LE[layer, expert])
            if self._count_LN[layer, domain] > 1:
                self._exchange(layer, expert, domain)

    def _crowded(self) -> list[tuple[int, int]]:
        layer_x = np.arange(len(self.domain_LE))[:, None]
        crowded = (self._count_LN[layer_x, self.domain_LE] > 1) & ~self._fixed_LE
        return [(int(layer), int(expert)) for layer, expert in np.argwhere(crowded)]

    def _exchange(self, layer: int, expert: int, domain: int) -> None:
        """Give an expert the place of another layer's that can take its own."""
        fits = (self._count_LN[layer, self.domain_LE] == 0) & ~self._fixed_LE
        fits &= (self._count_LN[:, domain] == 0)[:, None]
        found = np.argwhere(fits)
        if found.size:
            other, its = (int(place) for place in found[0])
            there = int(self.domain_LE[other, its])
            for mover, who, leaves, enters in (
                (layer, expert, domain, there),
                (other, its, there, domain),
            ):
                self.domain_LE[mover, who] = enters
                self._count_LN[mover, leaves] -= 1
                self._count_LN[mover, enters] += 1


def gpus_of(domain_LE: IntArray, domain_G: IntArray) -> IntArray:
    """Return the GPU of every expert [L, E]: its layer spread over the rails."""
    free: list[list[int]] = [[] for _ in range(int(domain_G.max()) + 1)]
    rail_of = {}
    for gpu, domain in enumerate(domain_G.tolist()):
        rail_of[gpu] = len(free[domain])
        free[domain].append(gpu)
    rails = max(map(len, free))
    gpu_LE = np.zeros_like(domain_LE)
    for layer, domain_E in enumerate(domain_LE.tolist()):
        taken = [0] * rails
        for expert, domain in enumerate(domain_E):
            gpu = min(free[domain], key=lambda each: (taken[rail_of[each]], each))
            free[domain].remove(gpu)
            taken[rail_of[gpu]] += 1
            gpu_LE[layer, expert] = gpu
    return gpu_LE
