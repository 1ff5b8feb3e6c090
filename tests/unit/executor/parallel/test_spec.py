"""Which ranks share what, and which models can be divided how."""

from typing import Any

import pytest

from planner.errors import UsageError
from planner.executor.model.config import DecoderConfig, GroupedDims, LatentDims
from planner.executor.parallel.spec import ParallelSpec, Place
from tests.unit.executor.model.toys import config_of

MLA = LatentDims(heads=6, kv_lora_rank=4, rope_head_dim=2, head_dim=2, v_head_dim=2)


def test_groups_by_hand() -> None:
    """Law: stages are outermost, then replicas; a tensor group is neighbours."""
    spec = ParallelSpec(tp=4, etp=2, pp=2, dp=2)
    assert (spec.ranks, spec.ep) == (16, 4)
    place = Place(spec, 13)
    assert (place.pp, place.dp, place.tp) == (1, 1, 1)
    assert place.tp_ranks == [12, 13, 14, 15]
    assert place.dp_ranks == [9, 13]
    assert place.pp_ranks == [5, 13]
    assert place.ep_ranks == [9, 11, 13, 15]


@pytest.mark.parametrize("name", ["tp_ranks", "dp_ranks", "pp_ranks", "ep_ranks"])
def test_groups_of_a_kind_cut_the_ranks_up(name: str) -> None:
    """Law: every rank is in one group of each kind, as all its members see it."""
    spec = ParallelSpec(tp=4, etp=2, pp=3, dp=2)
    for rank in range(spec.ranks):
        group = getattr(Place(spec, rank), name)
        assert rank in group
        assert all(getattr(Place(spec, other), name) == group for other in group)


@pytest.mark.parametrize(
    ("degrees", "says"),
    [
        ({"tp": 0}, "tp = 0: must be an integer >= 1"),
        ({"dp": 2.0}, "dp = 2.0: must be an integer >= 1"),
        ({"tp": 4, "etp": 3}, "etp = 3: must divide tp = 4"),
        ({"tp": 2, "etp": 4}, "etp = 4: must divide tp = 2"),
    ],
)
def test_degrees_that_do_not_go_together(degrees: dict[str, Any], says: str) -> None:
    """Law: one clear error names the degree and the rule."""
    with pytest.raises(UsageError, match=says):
        ParallelSpec(**degrees)


@pytest.mark.parametrize(
    ("degrees", "attention", "changes", "says"),
    [
        ({"pp": 4}, MLA, {}, "the model has 3 layers, fewer than stages"),
        ({"tp": 4}, MLA, {}, "must divide the 6 attention heads"),
        (
            {"tp": 4},
            GroupedDims(heads=12, kv_heads=6, head_dim=2),
            {},
            "must divide the 6 heads of keys and values, or be divisible by them",
        ),
        ({"tp": 2}, MLA, {"dense_ffn": 7}, "must divide the 7 columns of a dense"),
        ({"tp": 2}, MLA, {"shared_ffn": 9}, "must divide the 9 columns of the shared"),
        (
            {"tp": 2, "etp": 2},
            MLA,
            {"expert_ffn": 5},
            "must divide the 5 columns of an",
        ),
    ],
)
def test_models_that_cannot_be_divided(
    degrees: dict[str, Any], attention: Any, changes: dict[str, Any], says: str
) -> None:
    """Law: what does not divide evenly is refused before anything is built."""
    spec = ParallelSpec(**degrees)
    with pytest.raises(UsageError, match=says):
        spec.check(config_of(attention, **changes), spec.ranks)


def test_another_number_of_ranks_is_refused() -> None:
    """Law: degrees multiply to the ranks there are."""
    config: DecoderConfig = config_of(MLA)
    with pytest.raises(UsageError, match="tp 2 x dp 1 x pp 1 needs 2 ranks, there are"):
        ParallelSpec(tp=2).check(config, 3)


@pytest.mark.parametrize("kv_heads", [1, 2, 4, 8])
def test_heads_of_keys_and_values_are_divided_or_repeated(kv_heads: int) -> None:
    """Law: any number that divides the ranks, or is divided by them, will do."""
    attention = GroupedDims(heads=8, kv_heads=kv_heads, head_dim=2)
    ParallelSpec(tp=4).check(config_of(attention), 4)
