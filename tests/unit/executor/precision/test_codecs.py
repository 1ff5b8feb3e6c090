"""Formats one by one: bytes of a row, values by hand, what is lost at most."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.workload.messages import message_bytes
from planner.workload.presets import load_model
from tests.unit.executor.precision.oracle import (
    e4m3_values,
    nearest_e4m3,
    power_of_two_for,
    quantised,
)

torch = pytest.importorskip("torch")

from planner.errors import UsageError  # noqa: E402
from planner.executor.precision.bf16 import Bf16  # noqa: E402
from planner.executor.precision.fp8 import BLOCK, Fp8  # noqa: E402
from planner.executor.precision.fp32 import Fp32  # noqa: E402
from planner.executor.precision.named import (  # noqa: E402
    PRECISIONS,
    precision_named,
)
from planner.executor.precision.tolerance import TOLERANCES  # noqa: E402

pytestmark = pytest.mark.torch
WIDTHS = [1, 7, 127, 128, 129, 200, 256, 300]


def there_and_back(codec: Any, x: Any) -> Any:
    return codec.decode(codec.encode(torch.as_tensor(x, dtype=torch.float32)))


def row_bytes(columns: Any) -> int:
    """Bytes of one row of all columns."""
    return sum(rows[0].nbytes for rows in columns)


@pytest.mark.parametrize("width", [*WIDTHS, 7168])
def test_a_row_has_the_bytes_that_plans_pay_for(width: int) -> None:
    """Law: what travels is rule 22's message without its header, at any size."""
    x = torch.zeros(3, width)
    model = replace(load_model("tiny-moe"), hidden=width)
    for name, dtype in (("bf16", "bf16"), ("fp8", "fp8")):
        dispatch, combine = message_bytes(
            replace(model, dispatch_dtype=dtype), "copies"
        )
        wire = PRECISIONS[name].wire
        assert row_bytes(wire.dispatch.encode(x)) == dispatch - 16
        assert row_bytes(wire.combine.encode(x)) == combine
    assert row_bytes(PRECISIONS["fp32"].wire.dispatch.encode(x)) == 4 * width


def test_float32_is_left_as_it_is() -> None:
    """Law: nothing is copied, nothing is converted."""
    x = torch.randn(3, 5)
    assert Fp32().encode(x)[0] is x
    assert Fp32().decode((x,)) is x


def test_bf16_keeps_the_upper_half() -> None:
    """By hand: 1 + 2^-7 fits; 1 + 2^-8 is a tie and goes to the even neighbour."""
    found = there_and_back(Bf16(), [[1 + 2**-7, 1 + 2**-8, 1 + 3 * 2**-8, -3e38]])
    assert found[0, :3].tolist() == [1 + 2**-7, 1.0, 1 + 2**-6]
    assert abs(float(found[0, 3]) + 3e38) <= 3e38 * 2**-8


def test_fp8_values_by_hand() -> None:
    """By hand: greatest value 448 gives scale 1; 17 is halfway from 16 to 18."""
    values, scales = Fp8().encode(torch.tensor([[448.0, 17.0, 19.0, 2.0**-10, -3.3]]))
    assert scales.tolist() == [[1.0]]
    assert values.dtype == torch.float8_e4m3fn
    assert values.float().tolist() == [[448.0, 16.0, 20.0, 0.0, -3.25]]
    values, scales = Fp8().encode(torch.tensor([[449.0, 34.0]]))
    assert scales.tolist() == [[2.0]]
    assert values.float().tolist() == [[224.0, 16.0]]


def test_the_oracle_knows_the_greatest_and_the_least_value() -> None:
    """By hand: 448 = 1.75 · 2^8, and 2^-9 above zero."""
    values = e4m3_values()
    assert values[-1] == 448
    assert values[1] == 2**-9
    assert nearest_e4m3(np.array([-17.0, 19.0, 448.0])).tolist() == [-16, 20, 448]
    assert power_of_two_for(449.0) == 2


def test_torch_rounds_as_the_oracle() -> None:
    """Law: every midpoint, and what lies beside it, goes where the oracle says."""
    values = e4m3_values()
    middles = (values[1:] + values[:-1]) / 2
    asked = np.concatenate([values, middles, middles * 1.001, middles * 0.999])
    asked = np.concatenate([asked, -asked])
    found = torch.tensor(asked, dtype=torch.float32).to(torch.float8_e4m3fn).float()
    wanted = nearest_e4m3(np.float32(asked).astype(np.float64))
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("rows", [1, BLOCK])
@pytest.mark.parametrize("shape", [(1, 1), (3, 130), (129, 7), (131, 257)])
def test_fp8_is_the_naive_quantisation(rows: int, shape: tuple[int, int]) -> None:
    """Law: block by block and value by value, the same numbers."""
    rng = np.random.default_rng(shape[1])
    x = (rng.normal(size=shape) * np.exp(rng.normal(size=shape) * 3)).astype(np.float32)
    assert there_and_back(Fp8(rows), x).numpy().tolist() == quantised(x, rows).tolist()


@pytest.mark.parametrize("factor", [1e-44, 1e-38, 1e-30, 1.0, 1e30, 1e37])
def test_fp8_holds_small_and_great_values_alike(factor: float) -> None:
    """Law: the scale follows the values as far as float32 goes; subnormals vanish."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(4, 200)) * factor).astype(np.float32)
    assert there_and_back(Fp8(), x).numpy().tolist() == quantised(x, 1).tolist()


def test_zeros_stay_zeros() -> None:
    """Law: a block of zeros has a finite scale and comes back as zeros."""
    values, scales = Fp8().encode(torch.zeros(2, 130))
    assert scales.isfinite().all()
    assert (Fp8().decode((values, scales)) == 0).all()


@pytest.mark.parametrize("odd", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("name", ["bf16", "fp8"])
def test_what_is_not_finite_is_not_made_finite(odd: float, name: str) -> None:
    """Law: an infinity spoils its own block and no other; nothing is saturated."""
    x = torch.ones(2, 300)
    x[0, 130] = odd
    for codec in (PRECISIONS[name].wire.dispatch, PRECISIONS[name].wire.combine):
        found = there_and_back(codec, x)
        assert not found[0, 130].isfinite()
        assert (found[0, :128] == 1).all()
        assert (found[0, 256:] == 1).all()
        assert (found[1] == 1).all()


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    spread=st.floats(0, 8),
    rows=st.sampled_from([1, BLOCK]),
)
def test_what_fp8_loses_is_bounded(
    width: int, height: int, seed: int, spread: float, rows: int
) -> None:
    """Law: at most a 16th of a value, or half of e4m3's least step at the scale."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(height, width))
    drawn *= np.exp(spread * rng.normal(size=drawn.shape))
    drawn[rng.random(drawn.shape) < 0.1] = 0
    x = torch.from_numpy(drawn.astype(np.float32))
    codec = Fp8(rows)
    values, scales = codec.encode(x)
    assert values.shape == x.shape
    assert scales.shape == (-(-height // rows), -(-width // BLOCK))
    found = codec.decode((values, scales))
    spread_scale = scales.repeat_interleave(rows, 0)[:height]
    spread_scale = spread_scale.repeat_interleave(BLOCK, 1)[:, :width]
    bound = torch.maximum(x.abs() / 16, spread_scale * 2**-10)
    assert ((found - x).abs() <= bound).all()


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    spread=st.floats(0, 20),
    name=st.sampled_from(["fp32", "bf16", "fp8"]),
)
def test_coding_again_loses_nothing(
    width: int, seed: int, spread: float, name: str
) -> None:
    """Law: decoding, encoding and decoding give the same values as decoding."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(4, width)) * np.exp(spread * rng.normal(size=(4, width)))
    precision = PRECISIONS[name]
    for codec in (precision.wire.dispatch, precision.wire.combine, precision.weights):
        once = there_and_back(codec, drawn.astype(np.float32))
        assert torch.equal(there_and_back(codec, once), once)


def test_every_precision_has_a_tolerance_and_no_other() -> None:
    """Law: what can be chosen is what is held against something."""
    assert set(PRECISIONS) == set(TOLERANCES)
    with pytest.raises(UsageError, match="fp4"):
        precision_named("fp4")


def test_no_rows_are_no_rows() -> None:
    """Law: a rank without tokens sends columns of no length."""
    for precision in PRECISIONS.values():
        for codec in (precision.wire.dispatch, precision.wire.combine):
            columns = codec.encode(torch.zeros(0, 200))
            assert [len(rows) for rows in columns] == [0] * codec.columns
            assert codec.decode(columns).shape == (0, 200)
