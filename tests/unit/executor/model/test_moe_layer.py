"""A layer with experts: pauses, precision, and what stands in for its experts."""

from typing import Any

import pytest

from planner.executor.gating.gate import Gate
from tests.unit.executor.model.toys import KINDS, config_of

torch = pytest.importorskip("torch")

from planner.executor.model.moe import MoELayer  # noqa: E402
from planner.executor.stepping import Steps, finish  # noqa: E402

pytestmark = pytest.mark.torch


class Travelling:
    """Something that notes when it is waited for."""

    label, posted, arrived, prompt = "rows", 0.0, 0.0, False

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def wait(self) -> None:
        self.log.append("arrived")


def layer_of(**changes: Any) -> Any:
    torch.manual_seed(2)
    return MoELayer(config_of(KINDS["grouped"], **changes))


def test_shared_experts_compute_while_rows_travel() -> None:
    """Law: rows leave, then the shared experts compute, then rows are waited for."""
    layer, log = layer_of(), []
    x = torch.randn(2, 3, 32)
    expected = layer(x)

    def routed(x: Any, ids: Any, gates: Any) -> Steps[Any]:
        log.append("sent")
        yield Travelling(log)
        log.append("sent back")
        yield Travelling(log)
        return layer.combine_local(x, ids, gates)

    layer.routed = routed
    layer.shared.register_forward_hook(lambda *_: log.append("shared"))
    torch.testing.assert_close(layer(x), expected)
    assert log == ["sent", "shared", "arrived", "sent back", "arrived"]


def test_tokens_left_out_get_the_shared_part_alone() -> None:
    """Law: rows name who is routed; the others pass the shared experts only."""
    layer = layer_of()
    x, rows = torch.randn(6, 32), torch.tensor([1, 4])
    found, everyone = finish(layer.steps(x, rows)), layer(x)
    torch.testing.assert_close(found[rows], everyone[rows])
    others = torch.tensor([0, 2, 3, 5])
    assert torch.equal(found[others], layer.shared(x)[others])


def test_without_shared_experts_the_routed_are_all() -> None:
    """Law: a width of 0 means that there are none."""
    layer = layer_of(shared_ffn=0)
    x = torch.randn(5, 32)
    assert layer.shared is None
    torch.testing.assert_close(layer(x), layer.combine_local(x, *layer.route(x)))


def test_an_expert_that_nobody_chose_has_no_gradient() -> None:
    """Law: only the experts of a token learn from it."""
    layer = layer_of(gate=Gate(experts=8, top_k=1))
    x = torch.randn(1, 32)
    layer(x).sum().backward()
    chosen = int(layer.route(x)[0])
    moved = layer.w_in.grad.abs().amax(dim=(1, 2)) > 0
    assert moved.nonzero().flatten().tolist() == [chosen]


@torch.no_grad()
def test_half_precision_sums_and_scores_are_wide() -> None:
    """Law: in bfloat16, the same experts give outputs within 2e-2 of float32."""
    layer = layer_of()
    x = torch.randn(40, 32)
    half = layer_of().to(torch.bfloat16)
    ids, gates = half.route(x.bfloat16())
    assert gates.dtype == torch.float32
    found = half.combine_local(x.bfloat16(), ids, gates)
    wanted = layer.combine_local(x, ids, gates)
    assert found.dtype == torch.bfloat16
    error = (found.float() - wanted).abs().max() / wanted.abs().max()
    assert 0 < float(error) <= 2e-2
