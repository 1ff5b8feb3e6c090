"""One placed layer: what moves, by hand, and that outputs are the unsharded ones."""

from typing import Any

import numpy as np
import pytest

from planner.errors import ReplayMismatch, UsageError
from planner.witness.selection import chosen_ranks
from planner.witness.transfers import gpu_pairs, transfer_counts
from tests.unit.executor.placed import (
    layout_of,
    outputs_by_hand,
    part_of,
    random_experts,
    random_slots,
)

torch = pytest.importorskip("torch")

from planner.executor.dispatch import PlacedExperts  # noqa: E402

pytestmark = pytest.mark.torch
HIDDEN, FFN = 6, 4
WAYS = [
    ("copies", "local_nic"),
    ("copies", "dest_forward"),
    ("copies", "pxn"),
    ("dedup_gpu", "local_nic"),
    ("dedup_gpu", "dest_forward"),
    ("dedup_gpu", "pxn"),
    ("dedup_domain", "dest_forward"),
]


def weights(experts: int, seed: int = 0) -> tuple[Any, Any]:
    """Random SwiGLU weights of the logical experts."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(experts, HIDDEN, 2 * FFN, generator=generator),
        torch.randn(experts, FFN, HIDDEN, generator=generator),
    )


class Case:
    """A random layer with replicas, holes and missing choices."""

    def __init__(
        self, seed: int, selection: str, domains: list[int], ep: int | None = None
    ) -> None:
        rng = np.random.default_rng(seed)
        self.layout = layout_of(domains, ep)
        experts, tokens = 9, 70
        self.w_in, self.w_out = weights(experts)
        self.slots = random_slots(experts, self.layout.ep, 5, rng)
        ids = random_experts(1, tokens, 4, experts, rng)
        self.part = part_of(ids, len(domains), rng)
        self.ids = self.part.experts_LTK[0]
        self.x = torch.from_numpy(rng.normal(size=(tokens, HIDDEN)).astype(np.float32))
        self.gates = torch.from_numpy(rng.random((tokens, 4)).astype(np.float32))
        split = {
            expert: {"*": tuple(range(1, 1 + int((self.slots == expert).sum())))}
            for expert in range(experts)
        }
        self.targets = chosen_ranks(
            self.slots,
            split,
            selection,
            self.ids,
            self.part.source_T,
            self.part.rank_T,
            self.part.ordinal_T,
            self.layout,
        )

    def placed(self, traffic: str, endpoint: str) -> Any:
        return PlacedExperts(
            slots_GJ=self.slots,
            w_in_E=self.w_in,
            w_out_E=self.w_out,
            layout=self.layout,
            traffic=traffic,
            endpoint=endpoint,
        )

    def run(self, placed: Any) -> Any:
        return placed.run(
            self.x, self.gates, self.ids, self.targets, self.part.source_T
        ).numpy()

    def expected(self) -> Any:
        arrays = (self.w_in.double().numpy(), self.w_out.double().numpy())
        return outputs_by_hand(
            self.x.double().numpy(), self.gates.numpy(), self.ids, *arrays
        )


def far_off(found: Any, wanted: Any) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


HAND = {
    # Tokens: home 0 uses GPUs 2, 2, 3; home 1 uses 2, 2, 0; home 3 uses 3, 0.
    ("copies", "local_nic"): {(0, 2): 2, (0, 3): 1, (1, 2): 2, (1, 0): 1, (3, 0): 1},
    ("copies", "dest_forward"): {
        (0, 2): 3, (2, 3): 1, (1, 3): 2, (3, 2): 2, (1, 0): 2, (3, 1): 1,
    },
    # Across on the target's rail: 0 reaches 2 itself and 3 by 1; 3 reaches 0 by 2.
    ("copies", "pxn"): {
        (0, 2): 4, (0, 1): 1, (1, 3): 1, (1, 0): 3, (3, 2): 1, (2, 0): 1,
    },
    ("dedup_gpu", "local_nic"): {(0, 2): 1, (0, 3): 1, (1, 2): 1, (1, 0): 1, (3, 0): 1},
    ("dedup_gpu", "dest_forward"): {
        (0, 2): 2, (2, 3): 1, (1, 3): 1, (3, 2): 1, (1, 0): 2, (3, 1): 1,
    },
    ("dedup_gpu", "pxn"): {
        (0, 2): 2, (0, 1): 1, (1, 3): 1, (1, 0): 2, (3, 2): 1, (2, 0): 1,
    },
    ("dedup_domain", "dest_forward"): {
        (0, 2): 1, (2, 3): 1, (1, 3): 1, (3, 2): 1, (1, 0): 2, (3, 1): 1,
    },
}  # fmt: skip


@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
def test_three_tokens_on_four_gpus_move_as_counted_by_hand(
    traffic: str, endpoint: str
) -> None:
    """Law: GPU g holds experts 2g and 2g + 1; relays are those of rule 3."""
    ids = np.array([[4, 5, 6], [4, 5, 0], [6, 1, -1]])
    placed = PlacedExperts(
        slots_GJ=np.arange(8, dtype=np.int16).reshape(4, 2),
        w_in_E=weights(8)[0],
        w_out_E=weights(8)[1],
        layout=layout_of([0, 0, 1, 1]),
        traffic=traffic,
        endpoint=endpoint,
    )
    targets = np.where(ids >= 0, ids // 2, -1)
    placed.run(
        torch.ones(3, HIDDEN), torch.ones(3, 3), ids, targets, np.array([0, 1, 3])
    )
    moved = {
        (int(s), int(d)): int(placed.wire.dispatch_GG[s, d])
        for s, d in np.argwhere(placed.wire.dispatch_GG)
    }
    assert moved == HAND[traffic, endpoint]
    assert (placed.wire.combine_GG == placed.wire.dispatch_GG.T).all()
    assert placed.pairs_G.tolist() == [2, 0, 4, 2]


@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
@pytest.mark.parametrize(
    ("domains", "ep"), [([0, 0, 0, 1, 1], None), ([0, 0, 1, 1, 2, 2, 3, 3], 4)]
)
def test_placed_outputs_and_counts_are_right(
    traffic: str, endpoint: str, selection: str, domains: list[int], ep: int | None
) -> None:
    """Law: outputs are the unsharded ones; moved rows are those of the rules."""
    for seed in range(3):
        case = Case(seed, selection, domains, ep)
        placed = case.placed(traffic, endpoint)
        assert far_off(case.run(placed), case.expected()) < 1e-5
        counts = transfer_counts(
            traffic, endpoint, case.targets, case.part.source_T, case.layout
        ).matrix()
        assert (placed.wire.dispatch_GG == counts).all()
        assert (placed.wire.combine_GG == counts.T).all()
        pairs = gpu_pairs(case.targets, case.layout.gpu_count)
        assert (placed.pairs_G == pairs).all()


@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
def test_each_replica_has_weights_of_its_own(traffic: str, endpoint: str) -> None:
    """Law: one changed replica changes the tokens it serves and no others."""
    case = Case(1, "even", [0, 0, 0, 1, 1])
    expert = next(e for e in range(9) if (case.slots == e).sum() > 1)
    gpu, place = np.argwhere(case.slots == expert)[-1]
    placed = case.placed(traffic, endpoint)
    placed.ranks[gpu].w_out[place] *= 1.5
    served = ((case.ids == expert) & (case.targets == gpu)).any(axis=1)
    wanted = case.expected()
    difference = np.abs(case.run(placed) - wanted).max(axis=1) / np.abs(wanted).max()
    assert served.any()
    assert not served.all()
    assert (difference[served] > 1e-4).all()
    assert (difference[~served] < 1e-6).all()


@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
def test_experts_in_each_others_slots_are_noticed(traffic: str, endpoint: str) -> None:
    """Law: weights in the wrong slot change the outputs."""
    case = Case(2, "nearest", [0, 0, 1, 1, 1])
    placed = case.placed(traffic, endpoint)
    rank = placed.ranks[0]
    rank.w_in[[0, 1]] = rank.w_in[[1, 0]]
    assert far_off(case.run(placed), case.expected()) > 1e-3


def test_an_empty_slot_holds_no_weights() -> None:
    """Law: whatever is computed in a slot that the plan leaves empty is NaN."""
    case = Case(0, "nearest", [0, 0, 1, 1, 1])
    gpu, place = np.argwhere(case.slots == -1)[0]
    placed = case.placed("copies", "local_nic")
    assert placed.ranks[gpu].slots_held == (case.slots[gpu] >= 0).sum()
    assert placed.ranks[gpu].w_in[place].isnan().all()


def test_a_gpu_without_the_expert_cannot_serve_it() -> None:
    """Law: the address of a choice is looked up in the plan, or it is refused."""
    case = Case(0, "nearest", [0, 0, 1, 1, 1])
    token, choice = np.argwhere(case.ids >= 0)[0]
    holders = np.argwhere(case.slots == case.ids[token, choice])[:, 0]
    case.targets[token, choice] = np.setdiff1d(np.arange(5), holders)[0]
    with pytest.raises(ReplayMismatch, match="holds no copy"):
        case.run(case.placed("copies", "local_nic"))


def test_batches_add_up() -> None:
    """Law: counts of two batches are those of one."""
    case = Case(4, "even", [0, 0, 1, 1, 1])
    whole, cut = (case.placed("dedup_domain", "dest_forward") for _ in range(2))
    outputs = case.run(whole)
    halves = [
        cut.run(
            case.x[rows],
            case.gates[rows],
            case.ids[rows],
            case.targets[rows],
            case.part.source_T[rows],
        ).numpy()
        for rows in (slice(0, 30), slice(30, 70))
    ]
    assert far_off(np.concatenate(halves), outputs) < 1e-6
    assert (cut.wire.dispatch_GG == whole.wire.dispatch_GG).all()
    assert (cut.wire.combine_GG == whole.wire.combine_GG).all()
    assert (cut.pairs_G == whole.pairs_G).all()


def test_an_unknown_mode_is_refused() -> None:
    """Law: only the modes of the rules exist."""
    with pytest.raises(UsageError, match="dedup_domain"):
        Case(0, "nearest", [0, 0, 1, 1, 1]).placed("broadcast", "local_nic")
