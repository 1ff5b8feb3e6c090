"""What must be right on every device: here on the CPU, and on a GPU where there is one.

The same checks as ``python -m benchmarks.device`` makes.
"""

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from benchmarks import device as script  # noqa: E402
from benchmarks.device_checks import CHECKS, RANKS  # noqa: E402
from benchmarks.device_jobs import Device, NotHere, Wrong, differing, job  # noqa: E402
from benchmarks.device_times import TIMES  # noqa: E402
from planner.errors import UsageError  # noqa: E402
from planner.executor import forced  # noqa: E402
from planner.executor.device import device_named  # noqa: E402
from planner.executor.host import LocalHost  # noqa: E402
from planner.executor.model.feed_forward import swiglu  # noqa: E402
from planner.executor.slots import can_group, product_of  # noqa: E402
from planner.executor.world.nursery import Nursery  # noqa: E402

pytestmark = pytest.mark.torch
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Give all worlds one process to come from."""
    with Nursery() as shared:
        yield shared


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("check", [pytest.param(do, id=row) for row, do in CHECKS])
def test_what_must_be_right_is_right(name: str, check: Any, nursery: Nursery) -> None:
    """Law: counts, outputs, gradients and worlds do not depend on the device."""
    assert check(Device(torch=device_named(name), small=True, nursery=nursery))


@pytest.mark.slow
@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("work", [pytest.param(do, id=row) for row, do in TIMES])
def test_what_is_timed_runs(name: str, work: Any, nursery: Nursery) -> None:
    """Law: every timing comes to an end, and is of the right results."""
    assert work(Device(torch=device_named(name), small=True, nursery=nursery))


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("traffic", ["copies", "dedup_domain", "direct"])
def test_many_batches_take_turns(
    name: str, traffic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: batches on streams beside each other are counted and computed as ever."""
    monkeypatch.setattr(forced, "BATCH_TOKENS", 100)
    drawn = job(traffic, "even", tokens=1000)
    moved = forced.replay_forced(
        LocalHost(RANKS, device_named(name)),
        drawn.placement,
        drawn.part,
        model_spec=drawn.spec,
    )
    assert not differing(moved, drawn.counted())
    assert moved.outputs is not None
    assert 0 < moved.outputs.max_relative_error <= 1e-5


@pytest.mark.gpu
def test_a_grouped_product_on_a_gpu_is_a_product_per_expert() -> None:
    """Law: the kernel's rows meet their own expert's matrices, however few they are."""
    options: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    w_in = torch.randn(5, 64, 96, **options) / 8
    w_out = torch.randn(5, 48, 64, **options) / 7
    sizes = [0, 130, 1, 0, 7]
    x = torch.randn(sum(sizes), 64, **options)
    assert can_group(x, (w_in, w_out))
    assert not can_group(x.float(), (w_in.float(), w_out.float()))
    found = swiglu(x, w_in, w_out, product_of(torch.tensor(sizes, device="cuda")))
    parts = zip(x.split(sizes), w_in, w_out, strict=True)
    wanted = torch.cat([swiglu(rows, first, last) for rows, first, last in parts])
    assert (found - wanted).abs().max() <= 2e-2 * wanted.abs().max()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    """Law: one sentence says why, and what to do."""
    with pytest.raises(UsageError, match=r"cuda.*--device cpu"):
        device_named("cuda")
    with pytest.raises(UsageError, match="choose from cpu, cuda"):
        device_named("tpu")


def test_a_row_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Law: every row is shown with its state, and one failure fails the run."""

    def wrong(device: Device) -> str:
        raise Wrong("differs")

    def broken(device: Device) -> str:
        raise ValueError("broken")

    def absent(device: Device) -> str:
        raise NotHere("no such kernel")

    here = Device(torch=torch.device("cpu"))
    works = [("a", wrong), ("b", broken), ("c", absent), ("d", lambda device: "1 s")]
    found = [(row.name, row.state, row.figure) for row in script.rows(here, works)]
    assert found == [
        ("a", "failed", "differs"),
        ("b", "failed", "ValueError: broken"),
        ("c", "-", "no such kernel"),
        ("d", "ok", "1 s"),
    ]
    monkeypatch.setattr(script, "TIMES", [])
    console = Console(quiet=True)
    for checks, right in ((works, False), (works[2:], True)):
        monkeypatch.setattr(script, "CHECKS", checks)
        assert script.report(here, console) is right
