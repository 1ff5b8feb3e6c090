"""The parts of attention and feed-forward blocks add up to the whole."""

from typing import Any

import pytest

from planner.errors import ModelError
from planner.executor.model.config import GroupedDims

torch = pytest.importorskip("torch")

from planner.executor.model.attention.grouped import GroupedAttention  # noqa: E402
from planner.executor.model.attention.latent import LatentAttention  # noqa: E402
from planner.executor.model.config import LatentDims  # noqa: E402
from planner.executor.model.context import NothingKept, counted  # noqa: E402
from planner.executor.model.feed_forward import gelu, swiglu  # noqa: E402
from planner.executor.parallel.share import Share  # noqa: E402
from planner.executor.parallel.stage import layers_of  # noqa: E402
from planner.executor.parallel.tensor import (  # noqa: E402
    ParallelAttention,
    inner_slices,
    kv_heads_of,
)
from planner.executor.stepping import finish  # noqa: E402

pytestmark = pytest.mark.torch
HIDDEN = 12
WHOLE: dict[str, Any] = {
    "multi-head": GroupedDims(heads=4, kv_heads=4, head_dim=6),
    "grouped": GroupedDims(heads=8, kv_heads=2, head_dim=4),
    "multi-query": GroupedDims(heads=4, kv_heads=1, head_dim=4),
    "latent": LatentDims(
        heads=4, kv_lora_rank=5, rope_head_dim=4, head_dim=3, v_head_dim=2
    ),
    "latent with query rank": LatentDims(
        heads=4,
        q_lora_rank=5,
        kv_lora_rank=6,
        rope_head_dim=2,
        head_dim=3,
        v_head_dim=4,
    ),
}


def attention_of(kind: str) -> Any:
    torch.manual_seed(1)
    dims = WHOLE[kind]
    made = GroupedAttention if isinstance(dims, GroupedDims) else LatentAttention
    return made(HIDDEN, dims, 0)


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("kind", WHOLE)
def test_heads_add_up_to_the_whole_attention(kind: str, parts: int) -> None:
    """Law: the output of attention is the sum over its heads, however divided."""
    whole = attention_of(kind)
    x = torch.randn(2, 5, HIDDEN)
    mask = torch.ones(2, 5, dtype=torch.bool)
    given = {
        "positions_BS": counted(mask),
        "mask_BSC": None,
        "context": NothingKept(),
    }
    wanted = finish(whole.steps(x, **given))
    own = [ParallelAttention(whole, Share(i, parts), None).own for i in range(parts)]
    found = sum(finish(part.steps(x, **given)) for part in own)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_slices_lie_in_memory_of_their_own() -> None:
    """Law: a step on a part leaves the whole as it was, and draws no number."""
    whole = attention_of("grouped")
    before = whole.w_o.detach().clone()
    torch.manual_seed(9)
    following = torch.rand(1)
    torch.manual_seed(9)
    part = ParallelAttention(whole, Share(1, 2), None).own
    assert torch.equal(torch.rand(1), following)
    part.w_o.data.zero_()
    assert torch.equal(whole.w_o, before)


def test_keys_and_values_by_hand() -> None:
    """Law: a rank holds the heads that its queries look at, repeated if it must."""
    dims = GroupedDims(heads=8, kv_heads=2, head_dim=2)
    assert [kv_heads_of(dims, Share(i, 2)) for i in range(2)] == [[0], [1]]
    assert [kv_heads_of(dims, Share(i, 4)) for i in range(4)] == [[0], [0], [1], [1]]
    with pytest.raises(ModelError, match=r"attention\.kv_heads: 2 must divide the 3"):
        kv_heads_of(dims, Share(0, 3))


def test_gates_are_cut_beside_their_values() -> None:
    """Law: columns of SwiGLU's two halves go to the same rank."""
    w_in = torch.tensor([[1.0, 2, 3, 4, 10, 20, 30, 40]])
    w_out = torch.arange(4.0)[:, None]
    columns, rows = inner_slices(w_in, w_out, Share(1, 2))
    assert columns.tolist() == [[3, 4, 30, 40]]
    assert rows.flatten().tolist() == [2, 3]


@pytest.mark.parametrize("activation", [swiglu, gelu])
def test_slices_of_an_expert_add_up(activation: Any) -> None:
    """Law: columns, then rows, then a sum is the whole feed-forward part."""
    torch.manual_seed(2)
    width = 16 if activation is swiglu else 8
    w_in, w_out, x = torch.randn(3, 5, width), torch.randn(3, 8, 5), torch.randn(7, 5)
    slices = [inner_slices(w_in, w_out, Share(i, 4)) for i in range(4)]
    found = sum(activation(x, a, b) for a, b in slices)
    torch.testing.assert_close(found, activation(x, w_in, w_out), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_divided_evenly_is_refused() -> None:
    """Law: an inner width that the ranks do not divide is an error."""
    with pytest.raises(ModelError, match="inner width: 4 must be divisible by the 3"):
        inner_slices(torch.zeros(1, 4), torch.zeros(4, 1), Share(0, 3))


def test_stages_take_consecutive_layers() -> None:
    """Law: every layer is in one stage; the first have one more."""
    found = [list(layers_of(7, Share(stage, 3))) for stage in range(3)]
    assert found == [[0, 1, 2], [3, 4], [5, 6]]
