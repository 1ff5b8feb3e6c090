"""Transfers of rule 20 on one token each, computed by hand.

Six GPUs, domain A = 0, 1, 2 and domain B = 3, 4 and domain C = 5: unequal on
purpose, so that relays wrap around.
"""

import numpy as np
import pytest

from planner.layout import ParallelLayout
from planner.traffic.base import TRAFFIC

LAYOUT = ParallelLayout(
    domain_G=np.asarray([0, 0, 0, 1, 1, 2]),
    ep=6,
    attention_groups=tuple((gpu,) for gpu in range(6)),
)


def transfers(
    mode: str, targets: list[int], source: int, endpoint: str
) -> dict[tuple[int, int], int]:
    counted = TRAFFIC.get(mode).count(
        np.asarray([targets]), np.asarray([source]), LAYOUT, endpoint
    )
    pairs = zip(counted.source_n.tolist(), counted.target_n.tolist(), strict=True)
    return dict(zip(pairs, counted.count_n.tolist(), strict=True))


CASES = [
    ("copies", "local_nic", 0, [0, 1, 1, 4], {(0, 1): 2, (0, 4): 1}),
    # Relay of rail 0 in B is GPU 3: two unmerged transfers per far expert.
    (
        "copies",
        "dest_forward",
        0,
        [4, 4, 3, 1],
        {(0, 3): 3, (3, 4): 2, (0, 1): 1},
    ),
    ("dedup_gpu", "local_nic", 0, [4, 4, 3, 1, 0], {(0, 4): 1, (0, 3): 1, (0, 1): 1}),
    (
        "dedup_gpu",
        "dest_forward",
        0,
        [4, 4, 3],
        {(0, 3): 2, (3, 4): 1},
    ),
    # B's GPU 4 is on rail 1: across from A's GPU 1; GPU 3 on rail 0, from GPU 0.
    ("copies", "pxn", 0, [4, 4, 3, 1], {(0, 1): 3, (1, 4): 2, (0, 3): 1}),
    ("dedup_gpu", "pxn", 2, [4, 4, 3], {(2, 1): 1, (1, 4): 1, (2, 0): 1, (0, 3): 1}),
    # C has one GPU: whatever the rail of the target, it is its own relay.
    ("copies", "pxn", 5, [1, 4], {(5, 1): 1, (5, 4): 1}),
    # Rail 1 of A: relay in B is GPU 4, in C it is GPU 5 (1 mod 1 = 0th member).
    (
        "dedup_domain",
        "dest_forward",
        1,
        [3, 3, 4, 5, 2, 1],
        {(1, 4): 1, (4, 3): 1, (1, 5): 1, (1, 2): 1},
    ),
    # Rail 2 of A wraps: relay in B is member 2 mod 2 = GPU 3.
    ("dedup_domain", "dest_forward", 2, [4], {(2, 3): 1, (3, 4): 1}),
    ("dedup_domain", "dest_forward", 5, [-1, 0, -1, 1], {(5, 0): 1, (0, 1): 1}),
]


@pytest.mark.parametrize(("mode", "endpoint", "source", "targets", "expected"), CASES)
def test_one_token_causes_exactly_these_transfers(
    mode: str,
    endpoint: str,
    source: int,
    targets: list[int],
    expected: dict[tuple[int, int], int],
) -> None:
    """Source = target is no transfer; relays wrap by rail mod domain size."""
    assert transfers(mode, targets, source, endpoint) == expected


def test_relays_count_the_members_of_the_set_only() -> None:
    """Two EP sets share a domain of four: rails and relays restart in each."""
    layout = ParallelLayout(
        domain_G=np.asarray([0, 0, 1, 1, 1, 1, 0, 0]),
        ep=4,
        attention_groups=tuple((gpu,) for gpu in range(8)),
    )
    assert layout.rail_G.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    counted = TRAFFIC.get("dedup_domain").count(
        np.asarray([[6]]), np.asarray([5]), layout, "dest_forward"
    )
    pairs = zip(counted.source_n.tolist(), counted.target_n.tolist(), strict=True)
    assert set(pairs) == {(5, 7), (7, 6)}
