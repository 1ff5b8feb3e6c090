"""Values of rule 23, imbalance of rule 26, bytes of rules 22 and 27, by hand."""

from fractions import Fraction

import numpy as np
import pytest

from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.topology.graph import Link
from planner.witness.figures import (
    LayerFigures,
    domain_imbalance,
    imbalance,
    inter_domain_bytes,
    layer_figures,
    message_bytes,
    scope,
    tokens_on,
    values,
)
from planner.workload.model_spec import Attention, MoEModelSpec


def link(index, kind, name, rate, *, divisor=1, members=()):
    """One link; ``rate`` in bytes per second."""
    return Link(
        index=index,
        source=f"s{index}",
        target=f"t{index}",
        kind=kind,
        link_class=name,
        cables=divisor,
        token_divisor=divisor,
        nominal_bytes_per_s=Fraction(rate),
        bytes_per_s=Fraction(rate),
        latency_s=0.0,
        members=members,
    )


LINKS = (
    link(0, "nvlink", "nvlink:gpu>gpu", 100),
    link(1, "ib", "ib:nic>switch0", Fraction(7, 2)),
    link(2, "ib", "ib:switch0>switch1", 5, divisor=4),
    link(3, "pcie", "pcie:gpu>nic", 9),
    link(4, "group", "group:shared", 6, members=(2, 3)),
)
LAYOUT = ParallelLayout(
    domain_G=np.asarray([0, 0, 1]), ep=3, attention_groups=((0,), (1,), (2,))
)


def figures(dispatch, combine, pairs=(0, 0, 0), transfers=None, denominator=1):
    """Counts of one layer over Q = 2."""
    moved_GG = np.asarray(transfers if transfers else np.zeros((3, 3), int))
    return LayerFigures(
        pairs_G=np.asarray(pairs),
        transfers=PairCounts.of_matrix(moved_GG),
        combine=PairCounts.of_matrix(moved_GG.T),
        dispatch_A=np.asarray(dispatch),
        combine_A=np.asarray(combine),
        denominator=denominator,
    )


TWO_LAYERS = (
    figures([8, 2, 4, 6, 10], [2, 4, 8, 0, 8], pairs=(1, 2, 3)),
    figures([0, 6, 0, 2, 2], [0, 0, 0, 2, 2], pairs=(4, 0, 2)),
)


def spec(**changes) -> MoEModelSpec:
    """DeepSeek-V3's sizes: hidden 7168, top 8."""
    given = {
        "name": "m",
        "layers": 2,
        "moe_layers": (0, 1),
        "experts": 8,
        "top_k": 8,
        "hidden": 7168,
        "expert_ffn": 8,
        "shared_ffn": 0,
        "dense_ffn": 8,
        "ffn_matrices": 3,
        "attention": Attention(heads=1, kv_heads=1, head_dim=8),
        "vocab": 10,
        **changes,
    }
    return MoEModelSpec(**given)


def test_link_time_is_the_slowest_link_of_each_leg() -> None:
    """10 bytes out, 20 back, loads over 2: worked out link by link.

    Layer 0: out max(8·5/100, 2·5/3.5, 4·5/5, 6·5/9, 10·5/6) = 25/3; back
    max(2·10/100, 4·10/3.5, 8·10/5, 0, 8·10/6) = 16. Layer 1: out 6·5/3.5 = 60/7;
    back max(20/9, 20/6) = 10/3.
    """
    found = values(TWO_LAYERS, LINKS, 2, (10, 20), None)["link_time"]
    first, second = Fraction(25, 3) + 16, Fraction(60, 7) + Fraction(10, 3)
    assert found["sequential"] == first + second
    assert found["worst_layer"] == first
    pipelined = [
        Fraction(8 * 5 + 2 * 10, 100),
        (2 * 5 + 4 * 10 + 6 * 5) / Fraction(7, 2),
        Fraction(4 * 5 + 8 * 10, 5),
        Fraction(6 * 5 + 2 * 5 + 2 * 10, 9),
        Fraction(10 * 5 + 8 * 10 + 2 * 5 + 2 * 10, 6),
    ]
    assert found["pipelined"] == max(pipelined)


def test_link_tokens_counts_transfers_outside_the_scale_up_and_the_host() -> None:
    """Default scope: ib links and the group they belong to.

    Tokens: link 2 divides by 4 cables; the group adds link 2 / 4 and link 3 / 1.
    Layer 0: out max(1, 1/2, 1/2 + 3), back max(2, 1, 1); layer 1: out 3, back 1.
    """
    assert [at.index for at in scope(LINKS, None)] == [1, 2, 4]
    found = values(TWO_LAYERS, LINKS, 2, (10, 20), None)["link_tokens"]
    assert found["sequential"] == Fraction(7, 2) + 2 + 3 + 1
    assert found["worst_layer"] == Fraction(7, 2) + 2
    assert found["pipelined"] == Fraction(7, 2) + 1 + 1 + 1


def test_link_classes_choose_the_scope_and_groups_follow_their_members() -> None:
    """Rule 10: a group is in scope if a member is; without others, all links are."""
    assert [at.index for at in scope(LINKS, ("nvlink:gpu>gpu",))] == [0]
    assert [at.index for at in scope(LINKS, ("pcie:gpu>nic",))] == [3, 4]
    assert [at.index for at in scope(LINKS[:1], None)] == [0]
    assert tokens_on(LINKS[4], TWO_LAYERS[0].dispatch_A, LINKS, 2) == Fraction(7, 2)


def test_gpu_tokens_looks_at_pairs_only() -> None:
    """Σ max = 3 + 4; max = 4; max of sums = (5, 2, 5)."""
    found = values(TWO_LAYERS, LINKS, 2, (10, 20), None)["gpu_tokens"]
    assert found == {"sequential": 7, "pipelined": 5, "worst_layer": 4}


def test_layers_of_different_denominators_add_exactly() -> None:
    """Counts tables: 1/3 and 1/2 of a pair."""
    layers = (
        figures([0] * 5, [0] * 5, pairs=(1, 0, 0), denominator=3),
        figures([0] * 5, [0] * 5, pairs=(1, 0, 0), denominator=2),
    )
    found = values(layers, LINKS, 1, (1, 1), None)["gpu_tokens"]
    assert found["pipelined"] == Fraction(5, 6)
    assert found["worst_layer"] == Fraction(1, 2)


@pytest.mark.parametrize("factor", [2**28, 2**50, 2**61, 2**80])
def test_loads_and_messages_of_any_size_add_exactly(factor: int) -> None:
    """Law: all values grow with the loads and the messages, past 64 bits too."""
    small = values(TWO_LAYERS, LINKS, 2, (10, 20), None)
    huge = [
        figures(
            np.asarray(at.dispatch_A, dtype=object) * factor,
            np.asarray(at.combine_A, dtype=object) * factor,
            pairs=at.pairs_G.astype(object) * factor,
        )
        for at in TWO_LAYERS
    ]
    grown = values(huge, LINKS, 2, (10, 20), None)
    messages = values(TWO_LAYERS, LINKS, 2, (10 * factor, 20 * factor), None)
    for mode, value in small["link_time"].items():
        assert messages["link_time"][mode] == value * factor
    for name, modes in small.items():
        assert grown[name] == {mode: value * factor for mode, value in modes.items()}


def test_imbalance_is_max_over_mean_and_one_without_tokens() -> None:
    """Pairs 1, 2, 3 on domains {0, 1} and {2}: 3/2 and 3 / 2."""
    assert imbalance(TWO_LAYERS[0]) == Fraction(3, 2)
    assert domain_imbalance(TWO_LAYERS[0], LAYOUT) == Fraction(3, 2)
    assert domain_imbalance(TWO_LAYERS[1], LAYOUT) == Fraction(1)
    empty = figures([0] * 5, [0] * 5)
    assert imbalance(empty) == domain_imbalance(empty, LAYOUT) == 1


def test_inter_domain_bytes_count_both_legs() -> None:
    """Only transfers between {0, 1} and {2}: 4 + 5 over 3, times 10 + 20."""
    layer = figures(
        [0] * 5, [0] * 5, transfers=[[0, 9, 4], [1, 0, 0], [0, 5, 0]], denominator=3
    )
    assert inter_domain_bytes([layer], LAYOUT, (10, 20)) == 90


def test_bytes_of_a_combine_leg_of_its_own_are_counted_from_it() -> None:
    """``direct``: 4 + 5 transfers out at 10 bytes, 6 back at 20, over 3."""
    out = np.asarray([[0, 9, 4], [1, 0, 0], [0, 5, 0]])
    back = np.asarray([[0, 8, 0], [0, 0, 6], [0, 0, 0]])

    class NoLinks:
        """No link carries anything."""

        def loads(self, transfers_GG):
            return np.zeros(0, int)

    layer = layer_figures(
        np.asarray([0, 0, 0]),
        PairCounts.of_matrix(out),
        3,
        NoLinks(),
        PairCounts.of_matrix(back),
    )
    assert inter_domain_bytes([layer], LAYOUT, (10, 20)) == 30 + 40


def test_combine_mirrors_dispatch() -> None:
    """Rule 21: the combine leg is the transpose, routed where packets are."""

    class Outgoing:
        """One link per GPU: what it sends."""

        def loads(self, transfers):
            return transfers.matrix().sum(axis=1)

    found = layer_figures(
        np.asarray([1, 1, 1]),
        PairCounts.of_matrix(np.asarray([[0, 2, 3], [0, 0, 4], [0, 0, 0]])),
        1,
        Outgoing(),
    )
    assert found.dispatch_A.tolist() == [5, 4, 0]
    assert found.combine_A.tolist() == [0, 2, 7]


@pytest.mark.parametrize(
    ("traffic", "dtype", "expected"),
    [
        ("copies", "fp8", (7408, 14336)),
        ("copies", "bf16", (14352, 14336)),
        ("direct", "fp8", (7408, 14336)),
        ("dedup_domain", "fp8", (7472, 14384)),
        ("dedup_gpu", "bf16", (14416, 14384)),
    ],
)
def test_message_bytes_are_those_published_for_deepseek_v3(
    traffic, dtype, expected
) -> None:
    """Rule 22 at hidden 7168, top 8."""
    assert message_bytes(spec(dispatch_dtype=dtype), traffic) == expected


def test_scales_of_an_odd_width_round_up() -> None:
    """Hidden 96: one scale of 4 bytes; 96 + 8 + 4 + 16 = 124 is padded to 128."""
    small = spec(hidden=96, top_k=2)
    assert message_bytes(small, "copies") == (16 + 96 + 4, 192)
    assert message_bytes(small, "dedup_gpu") == (128, 208)
