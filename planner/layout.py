"""How the GPUs are grouped: EP sets, attention groups, rails and relays.

An *EP set* is a block of ``ep`` consecutive GPUs (EP order) that holds one copy
of all slots; where ``ep`` < G the sets hold the same slots (rules 16). A token
uses only its own set, and rails and relays (rule 3) count the set's GPUs only.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planner.arrays import BoolArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class ParallelLayout:
    """The groups of a plan over ``domain_G.size`` GPUs.

    Attributes
    ----------
    domain_G
        Scale-up domain of each GPU.
    ep
        GPUs per EP set; divides G.
    attention_groups
        GPUs of each DP rank (TP degree of them, one domain), by DP rank. GPUs in no
        group hold experts only.
    """

    domain_G: IntArray
    ep: int
    attention_groups: tuple[tuple[int, ...], ...]

    @property
    def gpu_count(self) -> int:
        """G."""
        return int(self.domain_G.size)

    @property
    def tp(self) -> int:
        """GPUs per attention group."""
        return len(self.attention_groups[0])

    @property
    def dp(self) -> int:
        """S, the number of DP ranks."""
        return len(self.attention_groups)

    @cached_property
    def attends_G(self) -> BoolArray:
        """Which GPUs are in an attention group."""
        attends_G = np.zeros(self.gpu_count, dtype=np.bool_)
        for group in self.attention_groups:
            attends_G[list(group)] = True
        return attends_G

    @property
    def sets(self) -> int:
        """Number of EP sets."""
        return self.gpu_count // self.ep

    @cached_property
    def groups_of_a_set(self) -> int:
        """Most attention groups with a GPU in one EP set."""
        seen = np.zeros((self.sets, self.dp), dtype=np.bool_)
        for number, group in enumerate(self.attention_groups):
            seen[self.set_G[list(group)], number] = True
        return int(seen.sum(axis=1).max())

    @cached_property
    def set_G(self) -> IntArray:
        """EP set of each GPU."""
        return np.arange(self.gpu_count, dtype=np.int64) // self.ep

    @cached_property
    def cell_members(self) -> tuple[tuple[int, ...], ...]:
        """GPUs of each (EP set, domain) pair that is not empty, in EP order."""
        cells: dict[tuple[int, int], list[int]] = {}
        for gpu in range(self.gpu_count):
            key = (int(self.set_G[gpu]), int(self.domain_G[gpu]))
            cells.setdefault(key, []).append(gpu)
        return tuple(tuple(members) for members in cells.values())

    @cached_property
    def rail_G(self) -> IntArray:
        """Rail of each GPU: its position in its domain within its EP set."""
        rail = np.zeros(self.gpu_count, dtype=np.int64)
        for members in self.cell_members:
            rail[list(members)] = np.arange(len(members))
        return rail

    @cached_property
    def _cells(self) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Cell of each GPU; first place and size of each cell; GPUs by cell."""
        cell_G = np.zeros(self.gpu_count, dtype=np.int64)
        for cell, members in enumerate(self.cell_members):
            cell_G[list(members)] = cell
        size_C = np.asarray([len(members) for members in self.cell_members])
        order = [gpu for members in self.cell_members for gpu in members]
        return cell_G, np.cumsum(size_C) - size_C, size_C, np.asarray(order)

    def relays(self, source: IntArray, target: IntArray) -> IntArray:
        """Return the GPU of the target's domain on the source's rail (rule 3).

        Counts the members of the target's EP set in the target's domain; pairs
        inside one domain have no use for theirs. Arrays of equal or broadcast
        shape; a target of -1 gives some GPU.
        """
        cell_G, first_C, size_C, gpu_at = self._cells
        cell = cell_G[target]
        relay: IntArray = gpu_at[first_C[cell] + self.rail_G[source] % size_C[cell]]
        return relay

    def first_stops(
        self, source: IntArray, target: IntArray, endpoint: str
    ) -> IntArray:
        """Return where a transfer stops first: at a relay, or at its target (rule 7).

        Between domains ``dest_forward`` crosses the fabric on the source's rail,
        ``pxn`` on the target's; a GPU that is its own relay sends straight on.
        """
        if endpoint == "local_nic":
            return target
        forward = endpoint == "dest_forward"
        relay = self.relays(source, target) if forward else self.relays(target, source)
        passed = (self.domain_G[source] != self.domain_G[target]) & (relay != source)
        return np.where(passed, relay, target)
