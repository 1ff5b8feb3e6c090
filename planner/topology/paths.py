"""Routes of transfers between plan GPUs as exact shares of every link."""

from dataclasses import dataclass

from planner.arrays import ExactArray, IntArray
from planner.topology.graph import ClusterTopology


@dataclass(frozen=True, kw_only=True, eq=False)
class Routes:
    """φ_a(s, d) = numerator / Q: the share of a transfer s → d on link a.

    INTERFACE (the implementation may hold it factorised):
    """

    topology: ClusterTopology
    q: int

    def pair(self, source: int, target: int) -> tuple[IntArray, IntArray]:
        """Link indices and numerators over Q of one GPU pair (empty if equal)."""
        raise NotImplementedError

    def loads(self, transfers_GG: ExactArray) -> ExactArray:
        """Exact numerators over Q [A] of the loads of a transfer matrix.

        int64 where a proven bound allows it, Python integers otherwise. Groups
        sum their members.
        """
        raise NotImplementedError

    def incidence(self) -> tuple[IntArray, IntArray, IntArray]:
        """CSR over pairs s·G + d: (indptr [G·G+1], links, numerators)."""
        raise NotImplementedError


def build_routes(topology: ClusterTopology, policy: str = "ecmp_fractional") -> Routes:
    """Return the routes of every pair of plan GPUs (rules 4-6)."""
    raise NotImplementedError
