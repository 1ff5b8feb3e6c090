"""Gradients travel back the way the rows came, in every traffic mode."""

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from tests.unit.executor.parallel import layer_jobs  # noqa: E402

if TYPE_CHECKING:
    from planner.executor.world.standing import StandingWorld

pytestmark = pytest.mark.torch
WAYS = [
    ("copies", "local_nic"),
    ("copies", "pxn"),
    ("dedup_gpu", "local_nic"),
    ("dedup_gpu", "dest_forward"),
    ("dedup_domain", "dest_forward"),
    ("direct", "local_nic"),
]


def assert_close(found: layer_jobs.Found, wanted: layer_jobs.Found) -> None:
    for name in "out", "x", "gates", "w_in", "w_out":
        scale = wanted[name].abs().max()
        assert float((found[name] - wanted[name]).abs().max() / scale) < 1e-5, name


def by_expert(found: layer_jobs.Found) -> layer_jobs.Found:
    """Add up gradients by slot, which must not come from slots without expert."""
    added = {}
    for name in "w_in", "w_out":
        whole = torch.zeros(layer_jobs.L, layer_jobs.E, *found[name].shape[2:])
        for layer, expert_P in enumerate(found["expert"]):
            assert not found[name][layer][expert_P < 0].any()
            held = expert_P >= 0
            whole[layer].index_add_(0, expert_P[held], found[name][layer][held])
        added[name] = whole
    return {**found, **added}


@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
def test_gradients_of_all_ranks_in_one_process(traffic: str, endpoint: str) -> None:
    """Law: those of tokens, gates and experts are the unsharded ones."""
    _, part = layer_jobs.case(4, traffic, endpoint)
    found = layer_jobs.here(None, 4, traffic, endpoint)
    assert_close(by_expert(found), layer_jobs.unsharded(part))


@pytest.mark.parametrize("gpus", [2, 4])
@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
def test_gradients_of_ranks_as_processes(
    worlds: "dict[int, StandingWorld]", gpus: int, traffic: str, endpoint: str
) -> None:
    """Law: the same over processes; every copy of an expert has the whole gradient."""
    _, part = layer_jobs.case(gpus, traffic, endpoint)
    wanted = layer_jobs.unsharded(part)
    ranks = worlds[gpus].run(layer_jobs.here, gpus, traffic, endpoint)
    found = {n: torch.stack([rank[n] for rank in ranks]).sum(0) for n in ("out", "x")}
    found["gates"] = torch.stack([rank["gates"] for rank in ranks]).sum(0)
    expert = torch.cat([rank["expert"] for rank in ranks], dim=1)
    for name in "w_in", "w_out":
        slots = torch.cat([rank[name] for rank in ranks], dim=1)
        found[name] = torch.zeros_like(wanted[name])
        for layer in range(layer_jobs.L):
            for one in range(layer_jobs.E):
                first, *copies = slots[layer][expert[layer] == one]
                assert all(torch.equal(copy, first) for copy in copies)
                found[name][layer, one] = first
    assert_close(found, wanted)
