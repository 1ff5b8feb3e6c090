"""One placed layer: what moves, by hand, and that outputs are the unsharded ones."""

from typing import Any

import numpy as np
import pytest

from planner.errors import UsageError, VerificationError
from planner.plan import PlacementPlan
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

from planner.executor.choosing import SlotChoice  # noqa: E402
from planner.executor.host import LocalHost  # noqa: E402
from planner.executor.model.feed_forward import swiglu  # noqa: E402
from planner.executor.placement import Placement  # noqa: E402
from planner.executor.stepping import finish  # noqa: E402

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


def placed(
    slots: Any, both: tuple[Any, Any], layout: Any, traffic: str, endpoint: str
) -> Any:
    """One layer's experts on virtual ranks."""
    placement = Placement(
        plan=PlacementPlan(layer_numbers=(0,), slots_LGJ=slots[None]),
        layout=layout,
        traffic=traffic,
        selection="nearest",
        endpoint=endpoint,
    )
    return placement.experts(0, both, swiglu, LocalHost(layout.gpu_count))


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
        self.split = {
            expert: {"*": tuple(range(1, 1 + int((self.slots == expert).sum())))}
            for expert in range(experts)
        }
        self.selection = selection
        self.targets = chosen_ranks(
            self.slots,
            self.split,
            selection,
            self.ids,
            self.part.source_T,
            self.part.rank_T,
            self.part.ordinal_T,
            self.layout,
        )

    def placed(self, traffic: str, endpoint: str) -> Any:
        return placed(
            self.slots, (self.w_in, self.w_out), self.layout, traffic, endpoint
        )

    def slots_TK(self) -> Any:
        choice = SlotChoice(
            self.slots, self.split, self.selection, self.layout, torch.device("cpu")
        )
        part = self.part
        columns = (part.source_T, part.rank_T, part.ordinal_T)
        return choice.of(
            torch.from_numpy(self.ids.astype(np.int64)), *map(torch.from_numpy, columns)
        )

    def run(self, experts: Any, rows: slice = slice(None)) -> Any:
        home = torch.from_numpy(self.part.source_T)
        return finish(
            experts.steps(
                self.x[rows], self.gates[rows], self.slots_TK()[rows], home[rows]
            )
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
    slots = np.arange(8, dtype=np.int16).reshape(4, 2)
    experts = placed(slots, weights(8), layout_of([0, 0, 1, 1]), traffic, endpoint)
    home = torch.tensor([0, 1, 3])
    # Expert e is in slot e.
    work = experts.steps(
        torch.ones(3, HIDDEN), torch.ones(3, 3), torch.from_numpy(ids), home
    )
    finish(work)
    moved = {
        (int(s), int(d)): int(experts.wire.dispatch_GG[s, d])
        for s, d in np.argwhere(experts.wire.dispatch_GG)
    }
    assert moved == HAND[traffic, endpoint]
    assert (experts.wire.combine_GG == experts.wire.dispatch_GG.T).all()
    assert experts.bank.pairs_G.tolist() == [2, 0, 4, 2]


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
        experts = case.placed(traffic, endpoint)
        assert far_off(case.run(experts), case.expected()) < 1e-5
        counts = transfer_counts(
            traffic, endpoint, case.targets, case.part.source_T, case.layout
        ).matrix()
        assert (experts.wire.dispatch_GG == counts).all()
        assert (experts.wire.combine_GG == counts.T).all()
        pairs = gpu_pairs(case.targets, case.layout.gpu_count)
        assert (experts.bank.pairs_G == pairs).all()


@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
def test_each_replica_has_weights_of_its_own(traffic: str, endpoint: str) -> None:
    """Law: one changed replica changes the tokens it serves and no others."""
    case = Case(1, "even", [0, 0, 0, 1, 1])
    expert = next(e for e in range(9) if (case.slots == e).sum() > 1)
    gpu, place = np.argwhere(case.slots == expert)[-1]
    experts = case.placed(traffic, endpoint)
    experts.bank.weights_P[1][0][gpu * 5 + place] *= 1.5
    served = ((case.ids == expert) & (case.targets == gpu)).any(axis=1)
    wanted = case.expected()
    difference = np.abs(case.run(experts) - wanted).max(axis=1) / np.abs(wanted).max()
    assert served.any()
    assert not served.all()
    assert (difference[served] > 1e-4).all()
    assert (difference[~served] < 1e-6).all()


@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
def test_experts_in_each_others_slots_are_noticed(traffic: str, endpoint: str) -> None:
    """Law: weights in the wrong slot change the outputs."""
    case = Case(2, "nearest", [0, 0, 1, 1, 1])
    experts = case.placed(traffic, endpoint)
    w_in = experts.bank.weights_P[0][0]
    w_in[[0, 1]] = w_in[[1, 0]]
    assert far_off(case.run(experts), case.expected()) > 1e-3


def test_an_empty_slot_holds_no_weights() -> None:
    """Law: whatever is computed in a slot that the plan leaves empty is NaN."""
    case = Case(0, "nearest", [0, 0, 1, 1, 1])
    gpu, place = np.argwhere(case.slots == -1)[0]
    experts = case.placed("copies", "local_nic")
    assert experts.bank.held_G[gpu] == (case.slots[gpu] >= 0).sum()
    assert experts.bank.weights_P[0][0][gpu * 5 + place].isnan().all()


@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
def test_an_expert_without_a_copy_cannot_be_served(selection: str) -> None:
    """Law: the address of a choice is looked up in the plan, or it is refused."""
    case = Case(0, selection, [0, 0, 1, 1, 1])
    expert = int(case.ids[case.ids >= 0][0])
    case.slots[case.slots == expert] = -1
    with pytest.raises(VerificationError, match=f"expert {expert} is used"):
        case.slots_TK()


@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
@pytest.mark.parametrize(
    ("domains", "ep"), [([0, 0, 0, 1, 1], None), ([0, 0, 1, 1, 2, 2, 3, 3], 4)]
)
def test_chosen_slots_are_on_the_gpus_that_the_rules_name(
    selection: str, domains: list[int], ep: int | None
) -> None:
    """Law: the tables choose what the witness chooses pair by pair."""
    for seed in range(6):
        case = Case(seed, selection, domains, ep)
        slots = case.slots_TK().numpy()
        assert (np.where(slots >= 0, slots // 5, -1) == case.targets).all()
        held = case.slots[slots // 5 % case.layout.ep, slots % 5]
        assert (held[slots >= 0] == case.ids[slots >= 0]).all()


def test_batches_add_up() -> None:
    """Law: counts of two batches are those of one."""
    case = Case(4, "even", [0, 0, 1, 1, 1])
    whole, cut = (case.placed("dedup_domain", "dest_forward") for _ in range(2))
    outputs = case.run(whole)
    halves = [case.run(cut, rows) for rows in (slice(0, 30), slice(30, 70))]
    assert far_off(np.concatenate(halves), outputs) < 1e-6
    assert (cut.wire.dispatch_GG == whole.wire.dispatch_GG).all()
    assert (cut.wire.combine_GG == whole.wire.combine_GG).all()
    assert (cut.bank.pairs_G == whole.bank.pairs_G).all()


def test_an_unknown_mode_is_refused() -> None:
    """Law: only the modes of the rules exist."""
    with pytest.raises(UsageError, match="dedup_domain"):
        Case(0, "nearest", [0, 0, 1, 1, 1]).placed("broadcast", "local_nic")
