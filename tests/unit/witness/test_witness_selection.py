"""Rules 16-19 by hand: which copy a token uses."""

import numpy as np
import pytest

from planner.errors import ManifestError, VerificationError
from planner.layout import ParallelLayout
from planner.witness.selection import chosen_ranks, copies_of, nearest_copy_G


def layout(domains: list[int], ep: int | None = None) -> ParallelLayout:
    """One DP rank per GPU."""
    return ParallelLayout(
        domain_G=np.asarray(domains, dtype=np.int64),
        ep=ep or len(domains),
        attention_groups=tuple((gpu,) for gpu in range(len(domains))),
    )


def choose(slots, experts, source, selection="nearest", split=None, ordinal=None, **k):
    """Run the rule with ranks equal to source GPUs."""
    source_T = np.asarray(source, dtype=np.int64)
    ordinal_T = np.asarray(ordinal if ordinal is not None else [0] * len(source))
    return chosen_ranks(
        np.asarray(slots, dtype=np.int16),
        split or {},
        selection,
        np.asarray(experts, dtype=np.int16),
        source_T,
        k.get("rank_T", source_T),
        ordinal_T,
        k["layout"],
    ).tolist()


def test_copies_are_ordered_by_gpu_then_by_position():
    """Two copies on one GPU both count (baselines, rule 29)."""
    slots = np.asarray([[1, 0], [0, 0], [2, -1]], dtype=np.int16)
    assert [ranks.tolist() for ranks in copies_of(slots, 4)] == [
        [0, 1, 1],
        [0],
        [2],
        [],
    ]


def test_nearest_takes_the_only_copy_wherever_it_is():
    """Case 1 of rule 17."""
    slots = [[0], [1], [2], [3]]
    got = choose(slots, [[3], [3], [3]], [0, 2, 3], layout=layout([0, 0, 1, 1]))
    assert got == [[3], [3], [3]]


def test_nearest_prefers_its_own_gpu_then_the_first_of_its_domain():
    """Cases 2 and 3: copies on GPUs 1, 2, 4; domains {0,1,2} and {3,4,5}."""
    slots = [[5], [0], [0], [5], [0], [5]]
    copy_G = nearest_copy_G(np.asarray([1, 2, 4]), 0, layout([0, 0, 0, 1, 1, 1]))
    assert copy_G.tolist() == [0, 0, 1, 2, 2, 2]
    got = choose(slots, [[0], [0], [0]], [0, 2, 5], layout=layout([0, 0, 0, 1, 1, 1]))
    assert got == [[1], [2], [4]]


def test_nearest_deals_the_last_case_to_gpus_in_turn():
    """Case 4: k counts the GPUs without a near copy; copy (k + e) mod m."""
    # Copies of expert 1 on GPUs 0 and 2 (domains 0 and 1); domain 2 has none.
    copy_G = nearest_copy_G(np.asarray([0, 2]), 1, layout([0, 0, 1, 1, 2, 2, 2]))
    assert copy_G.tolist() == [0, 0, 1, 1, (0 + 1) % 2, (1 + 1) % 2, (2 + 1) % 2]


def test_nearest_with_all_copies_local_is_the_last_case_not_the_first_copy():
    """'Some but not all' of rule 17: all copies near are dealt in turn."""
    # Copies on GPUs 1 and 2, everything in one domain; GPUs 0 and 3 are k = 0, 1.
    copy_G = nearest_copy_G(np.asarray([1, 2]), 4, layout([0, 0, 0, 0]))
    assert copy_G.tolist() == [(0 + 4) % 2, 0, 1, (1 + 4) % 2]


def test_nearest_counts_k_and_domains_inside_the_ep_set():
    """Rule 16: two sets of three GPUs over one domain of six."""
    slots = [[7], [0], [0]]
    two_sets = layout([0] * 6, ep=3)
    assert nearest_copy_G(np.asarray([1, 2]), 0, two_sets).tolist() == [0, 0, 1] * 2
    got = choose(slots, [[0], [0], [7]], [0, 3, 5], layout=two_sets)
    assert got == [[1], [4], [3]]


def test_even_hashes_the_ordinal():
    """Rule 18: 2654435769 · i mod 2³², then mod m."""
    slots = [[0], [0], [0]]
    ordinals = [0, 1, 2, 3, 1_000_000]
    got = choose(
        slots,
        [[0]] * 5,
        [0] * 5,
        selection="even",
        ordinal=ordinals,
        layout=layout([0, 0, 0]),
    )
    # 2654435769 mod 3 = 0; 2·… mod 2³² = 1013904242 mod 3 = 2; 3·… = 3668340011 mod 3
    assert got[:4] == [[0], [2654435769 % 3], [1013904242 % 3], [3668340011 % 3]]
    assert got[4] == [(2654435769 * 1_000_000 % 2**32) % 3]


def test_weighted_takes_the_first_copy_whose_share_covers_the_hash():
    """Rule 19 with weights 1:3; u(0) = 0.618·2³² is past the first quarter."""
    slots = [[0], [0]]
    split = {0: {"*": (1, 3)}}
    got = choose(
        slots,
        [[0]] * 4,
        [0] * 4,
        selection="weighted",
        split=split,
        ordinal=[0, 1, 2, 3],
        layout=layout([0, 0]),
    )
    shares = [(i * 2654435769) % 2**32 / 2**32 for i in (1, 2, 3, 4)]
    assert [round(share, 3) for share in shares] == [0.618, 0.236, 0.854, 0.472]
    assert got == [[1], [0], [1], [1]]


def test_weighted_prefers_the_entry_of_the_dp_rank():
    """Rule 19: the DP rank's own entry before ``*``; missing means equal."""
    slots = [[0, 1], [0, 1]]
    split = {0: {"0": (1, 0), "*": (0, 1)}}
    got = choose(
        slots,
        [[0], [0], [1]],
        [0, 1, 1],
        selection="weighted",
        split=split,
        layout=layout([0, 0]),
    )
    assert got == [[0], [1], [1]]  # u(0) = 0.618 lies in the second half


def test_weighted_compares_large_weights_exactly():
    """u·W < 2³²·w₀ beyond 64 bits: the border decides by one unit."""
    u = 2654435769
    slots, big = [[0], [0]], 10**30
    at = {0: {"*": (u * big, (2**32 - u) * big)}}
    above = {0: {"*": (u * big + 1, (2**32 - u) * big)}}
    both = [
        choose(slots, [[0]], [0], "weighted", split, layout=layout([0, 0]))
        for split in (at, above)
    ]
    assert both == [[[1]], [[0]]]


@pytest.mark.parametrize("weights", [(1,), (1, 1, 1), (-1, 2), (0, 0)])
def test_bad_weights_are_refused(weights):
    """Rule 19: negative, sum 0 or wrong length is invalid input."""
    with pytest.raises(ManifestError, match="weights"):
        choose(
            [[0], [0]],
            [[0]],
            [0],
            "weighted",
            {0: {"*": weights}},
            layout=layout([0, 0]),
        )


def test_a_missing_choice_stays_missing_and_an_uncovered_expert_is_refused():
    """-1 means no message (rule 11); an expert without a copy cannot serve."""
    assert choose([[0], [1]], [[-1, 1]], [0], layout=layout([0, 0])) == [[-1, 1]]
    with pytest.raises(VerificationError, match="expert 5"):
        choose([[0], [1]], [[5]], [0], layout=layout([0, 0]))
