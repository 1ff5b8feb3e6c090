"""One grouped product for all experts is a product for each."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from planner.executor import slots  # noqa: E402
from planner.executor.grouped import can_group, product_of  # noqa: E402
from planner.executor.model.feed_forward import EXPERT_FNS, inner_width  # noqa: E402
from planner.executor.precision.fp32 import Fp32  # noqa: E402
from planner.executor.slots import Rows, SlotBank  # noqa: E402

pytestmark = pytest.mark.torch
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def weights(activation: Any, experts: int, device: str, dtype: Any) -> tuple[Any, Any]:
    width = inner_width(activation, 24)
    options = {"device": device, "dtype": dtype}
    return (
        torch.randn(experts, 16, width, **options) * 0.25,
        torch.randn(experts, 24, 16, **options) * 0.2,
    )


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_grouped_product_is_a_product_per_expert(
    activation: Any, device: str, dtype: Any
) -> None:
    """Law: rows meet their own expert's matrices, wherever rows are few or none."""
    torch.manual_seed(1)
    expert, both = EXPERT_FNS[activation], weights(activation, 6, device, dtype)
    sizes = [3, 0, 40, 1, 0, 9]
    x = torch.randn(sum(sizes), 16, device=device, dtype=dtype)
    if not can_group(x, both):
        pytest.skip("no grouped GEMM for this device, format and version of torch")
    found = expert(x, *both, product_of(torch.tensor(sizes, device=device)))
    wanted = torch.cat(
        [
            expert(rows, *(matrix[number] for matrix in both))
            for number, rows in enumerate(x.split(sizes))
        ]
    )
    assert found.dtype == dtype
    error = (found - wanted).abs().max() / wanted.abs().max()
    assert error <= (1e-6 if dtype == torch.float32 else 2e-2)


def test_experts_are_computed_one_by_one_where_gradients_are_wanted() -> None:
    """Law: no grouped product on the way of a gradient, in rows or in weights."""
    w_in, w_out = weights("gelu", 2, "cpu", torch.float32)
    x = torch.randn(5, 16)
    assert can_group(x, (w_in, w_out)) == hasattr(torch.nn.functional, "grouped_mm")
    assert not can_group(x.clone().requires_grad_(), (w_in, w_out))
    assert not can_group(x, (w_in.clone().requires_grad_(), w_out))
    assert not can_group(x[:0], (w_in, w_out))
    assert not can_group(x[:, :6].contiguous(), (w_in[:, :6], w_out[:, :, :6]))
    assert not can_group(x.double(), (w_in.double(), w_out.double()))
    assert not can_group(x, (w_in.bfloat16(), w_out))


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
def test_a_bank_computes_the_same_either_way(
    activation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: however products are taken, rows and counts are the same."""
    torch.manual_seed(2)
    bank = SlotBank(
        np.array([[0, 1, -1], [2, 0, 3]]),
        weights(activation, 4, "cpu", torch.float32),
        range(2),
        EXPERT_FNS[activation],
        Fp32(),
    )
    slots_NM = torch.tensor([[0, 4], [1, 3], [5, -1], [-1, -1], [3, 5]])
    rows = Rows(
        payload_NH=torch.randn(5, 16),
        slots_NM=slots_NM,
        gates_NM=torch.rand(5, 2),
        rank_N=torch.tensor([0, 0, 1, 1, 1]),
    )
    grouped = bank.compute(rows)
    counted = bank.pairs_G.copy()
    monkeypatch.setattr(slots, "can_group", lambda *given: False)
    looped = bank.compute(rows)
    assert torch.allclose(grouped, looped, rtol=1e-5, atol=1e-6)
    assert counted.tolist() == [2, 3]
    assert bank.pairs_G.tolist() == [4, 6]
