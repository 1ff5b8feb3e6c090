"""Rules 3 and 20 by hand: which transfers a layer makes."""

import numpy as np
import pytest

from planner.errors import ManifestError
from planner.layout import ParallelLayout
from planner.witness.transfers import gpu_pairs, relays, transfer_counts


def layout(domains: list[int], ep: int | None = None) -> ParallelLayout:
    """One DP rank per GPU."""
    return ParallelLayout(
        domain_G=np.asarray(domains, dtype=np.int64),
        ep=ep or len(domains),
        attention_groups=tuple((gpu,) for gpu in range(len(domains))),
    )


def moves(mode, targets, source, cluster, endpoint="local_nic"):
    """Transfers as {(source, target): count}."""
    counts = transfer_counts(
        mode, endpoint, np.asarray(targets), np.asarray(source), cluster
    ).matrix()
    return {
        (int(s), int(d)): int(counts[s, d])
        for s, d in zip(*np.nonzero(counts), strict=True)
    }


FOUR = layout([0, 0, 1, 1])


def test_copies_sends_one_message_per_expert_and_none_to_itself():
    """Two experts on one GPU are two messages."""
    assert moves("copies", [[2, 2, 0, -1]], [0], FOUR) == {(0, 2): 2}


def test_dedup_gpu_sends_one_message_per_gpu():
    """Two experts on one GPU are one message."""
    assert moves("dedup_gpu", [[2, 2, 3, 0]], [0], FOUR) == {(0, 2): 1, (0, 3): 1}


def test_dedup_domain_sends_one_message_per_domain_then_fans_out():
    """Source 1 has rail 1: its relay in domain {2, 3} is GPU 3."""
    assert moves("dedup_domain", [[2, 2, 3, 0]], [1], FOUR) == {
        (1, 0): 1,
        (1, 3): 1,
        (3, 2): 1,
    }


def test_dedup_domain_needs_no_second_hop_when_the_relay_holds_the_expert():
    """Source = GPU 0, rail 0, relay 2, expert on 2."""
    assert moves("dedup_domain", [[2, 2]], [0], FOUR) == {(0, 2): 1}


def test_the_relay_of_an_unequal_domain_is_the_rail_modulo_its_size():
    """Rule 3: rail 2 of a three-GPU domain goes to member 2 mod 2 = 0."""
    unequal = layout([0, 0, 0, 1, 1])
    assert relays(unequal)[:, 1].tolist() == [3, 4, 3, 3, 4]
    assert moves("dedup_domain", [[4]], [2], unequal) == {(2, 3): 1, (3, 4): 1}


def test_dest_forward_relays_every_copy_unmerged():
    """Rule 7: two copies to one GPU make two transfers on both hops."""
    assert moves("copies", [[3, 3, 1]], [0], FOUR, "dest_forward") == {
        (0, 2): 2,
        (2, 3): 2,
        (0, 1): 1,
    }


def test_dedup_gpu_relays_like_copies():
    """Two GPUs of one domain: two messages to the relay, one goes on."""
    assert moves("dedup_gpu", [[2, 3]], [0], FOUR, "dest_forward") == {
        (0, 2): 2,
        (2, 3): 1,
    }


def test_pxn_crosses_on_the_rail_of_the_target():
    """Rule 7: GPU 0 reaches 3 by 1, and 2, on its own rail, itself."""
    assert moves("copies", [[3, 3, 2, 1]], [0], FOUR, "pxn") == {
        (0, 1): 3,
        (1, 3): 2,
        (0, 2): 1,
    }


def test_rails_and_relays_count_the_ep_set_only():
    """Sets {0,1,2,3} and {4,5,6,7} over domains {0,1,4,5} and {2,3,6,7}."""
    two_sets = layout([0, 0, 1, 1, 0, 0, 1, 1], ep=4)
    assert moves("dedup_domain", [[6]], [5], two_sets) == {(5, 7): 1, (7, 6): 1}


def test_interleaved_domains_keep_their_rails():
    """A domain need not be consecutive in EP order."""
    interleaved = layout([0, 1, 0, 1])
    assert moves("dedup_domain", [[1]], [2], interleaved) == {(2, 3): 1, (3, 1): 1}


def test_gpu_pairs_count_experts_not_messages():
    """(token, expert) pairs, wherever they come from."""
    assert gpu_pairs(np.asarray([[2, 2], [0, -1]]), 4).tolist() == [1, 0, 2, 0]


def test_an_unknown_mode_is_refused():
    """Only the three modes exist."""
    with pytest.raises(ManifestError, match="dedup_domain"):
        moves("multicast", [[0]], [0], FOUR)
