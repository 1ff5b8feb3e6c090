"""One MoE layer's experts on virtual ranks: dispatch, expert MLPs, combine.

The rules of who sends what to whom (rules 7 and 20) are acted out here message by
message, each rank looking only at its own tokens and at the headers it receives.
Combine goes the same way back: answers to a hop return to where the hop left from.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planner.arrays import IdArray, IntArray
from planner.errors import ReplayMismatch, UsageError
from planner.executor.ranks import VirtualRank
from planner.executor.wire import ANY_RANK, Messages, Wire, concatenated
from planner.layout import ParallelLayout
from planner.witness.transfers import relays

MODES = ("copies", "dedup_gpu", "dedup_domain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """Messages of one rank, and what it needs to use their answers.

    ``owner_N`` is the rank's row that an answer is added to: a token, or a
    message that was passed on. ``weight_N`` multiplies answers first; None is 1.
    """

    messages: Messages
    owner_N: Tensor
    weight_N: Tensor | None = None


class PlacedExperts:
    """The routed experts of one layer, placed by a plan on virtual ranks.

    Parameters
    ----------
    slots_GJ
        Logical experts of one EP set, [ep, J]; -1 where there is no slot.
    w_in_E, w_out_E
        SwiGLU weights of the logical experts, [E, H, 2F] and [E, F, H].
    traffic
        ``copies``, ``dedup_gpu`` or ``dedup_domain``.
    endpoint
        ``dest_forward`` and ``pxn`` send ``copies`` and ``dedup_gpu`` through relays
        (rule 7).
    """

    def __init__(
        self,
        *,
        slots_GJ: IdArray,
        w_in_E: Tensor,
        w_out_E: Tensor,
        layout: ParallelLayout,
        traffic: str,
        endpoint: str,
    ) -> None:
        if traffic not in MODES:
            raise UsageError(f"--traffic {traffic!r}: choose from {', '.join(MODES)}")
        self._slots_GJ, self._layout, self._traffic = slots_GJ, layout, traffic
        self._relays = traffic == "dedup_domain" or endpoint != "local_nic"
        self._endpoint = endpoint
        self._domain_G = torch.from_numpy(layout.domain_G.astype(np.int64))
        self._relay_GN = torch.from_numpy(relays(layout))
        self.wire = Wire(layout.gpu_count)
        self.ranks = [
            VirtualRank(gpu, slots_GJ[gpu % layout.ep], w_in_E, w_out_E)
            for gpu in range(layout.gpu_count)
        ]

    @property
    def pairs_G(self) -> IntArray:
        """(token, expert) pairs computed so far by each rank."""
        return np.array([rank.pairs for rank in self.ranks], dtype=np.int64)

    @torch.no_grad()
    def run(
        self,
        x_TH: Tensor,
        gates_TK: Tensor,
        experts_TK: IntArray | IdArray,
        targets_TK: IntArray,
        source_T: IntArray,
    ) -> Tensor:
        """Return the weighted sum of every token's experts, [T, H], at its home.

        Parameters
        ----------
        x_TH, gates_TK
            Hidden states and weights of the chosen experts.
        experts_TK, targets_TK
            Chosen experts and the GPU that serves each; -1 for none.
        source_T
            GPU each token leaves from and returns to.

        Raises
        ------
        ReplayMismatch
            If a GPU has no copy of an expert it is to serve, or a message is lost.
        """
        slots_TK = torch.from_numpy(self._addresses(experts_TK, targets_TK))
        home_T = torch.from_numpy(source_T.astype(np.int64))
        by_home = torch.argsort(home_T, stable=True)
        tokens = by_home.split(torch.bincount(home_T, minlength=self._ranks).tolist())
        sent = [
            self._dispatch(rank, x_TH[mine], slots_TK[mine], gates_TK[mine])
            for rank, mine in enumerate(tokens)
        ]
        inboxes = self.wire.send([outbox.messages for outbox in sent])
        answers = self._served(inboxes)
        back = self.wire.answer(inboxes, answers, [box.messages.count for box in sent])
        y_TH = torch.zeros_like(x_TH)
        for mine, outbox, rows in zip(tokens, sent, back, strict=True):
            y_TH[mine] = _added(torch.zeros_like(x_TH[mine]), outbox, rows)
        return y_TH

    @property
    def _ranks(self) -> int:
        return self._layout.gpu_count

    def _addresses(
        self, experts_TK: IntArray | IdArray, targets_TK: IntArray
    ) -> IntArray:
        """Number the slot that serves each (token, expert) through the cluster."""
        ep, slots = self._slots_GJ.shape
        count = 1 + max(int(experts_TK.max(initial=-1)), int(self._slots_GJ.max()))
        place_GE = np.full((ep, count), -1, dtype=np.int64)
        for place in reversed(range(slots)):  # the first of two copies counts
            held = np.flatnonzero(self._slots_GJ[:, place] >= 0)
            place_GE[held, self._slots_GJ[held, place]] = place
        used = targets_TK >= 0
        place_TK = place_GE[targets_TK % ep, np.where(used, experts_TK, 0)]
        if bool((used & (place_TK < 0)).any()):
            token, choice = np.argwhere(used & (place_TK < 0))[0]
            raise ReplayMismatch(
                [
                    f"GPU {targets_TK[token, choice]} is to serve expert "
                    f"{experts_TK[token, choice]} but holds no copy of it"
                ]
            )
        return np.where(used, targets_TK * slots + place_TK, -1)

    def _dispatch(
        self, rank: int, x_TH: Tensor, slots_TK: Tensor, gates_TK: Tensor
    ) -> Outbox:
        """Pack what one rank sends for its own tokens."""
        if self._traffic == "copies":
            return self._one_per_expert(rank, x_TH, slots_TK, gates_TK)
        token_P, gpu_P = self._touched(slots_TK)
        near_P = self._domain_G[gpu_P] == self._domain_G[rank]
        if self._traffic == "dedup_gpu":
            final_P, next_P = gpu_P, self._first_stop(rank, gpu_P)
        else:
            domains = len(self._relay_GN[rank])
            visits = torch.unique(
                token_P[~near_P] * domains + self._domain_G[gpu_P[~near_P]]
            )
            visitor = torch.div(visits, domains, rounding_mode="floor")
            relay = self._relay_GN[rank][visits % domains]
            token_P = torch.cat([token_P[near_P], visitor])
            next_P = torch.cat([gpu_P[near_P], relay])
            final_P = torch.full_like(next_P, ANY_RANK)
        order = torch.argsort(next_P, stable=True)
        token_P = token_P[order]
        messages = _packed(
            x_TH[token_P],
            slots_TK[token_P],
            gates_TK[token_P],
            final_P[order],
            next_P[order],
        )
        return Outbox(messages=messages, owner_N=token_P)

    def _one_per_expert(
        self, rank: int, x_TH: Tensor, slots_TK: Tensor, gates_TK: Tensor
    ) -> Outbox:
        """Pack a message per (token, expert): by destination, within it by expert."""
        token_P, choice_P = torch.nonzero(slots_TK >= 0, as_tuple=True)
        order = torch.argsort(slots_TK[token_P, choice_P], stable=True)
        token_P, choice_P = token_P[order], choice_P[order]
        slot_P = slots_TK[token_P, choice_P]
        final_P = self._holder(slot_P)
        next_P = self._first_stop(rank, final_P)
        messages = _packed(x_TH[token_P], slot_P[:, None], None, final_P, next_P)
        weight_P = gates_TK[token_P, choice_P]
        return Outbox(messages=messages, owner_N=token_P, weight_N=weight_P)

    def _served(self, inboxes: list[Messages]) -> list[Tensor]:
        """Return the answers of all ranks to their messages, passing some on."""
        if not self._relays:
            return [
                rank.compute(inbox)
                for rank, inbox in zip(self.ranks, inboxes, strict=True)
            ]
        passed = [self._onward(rank, inbox) for rank, inbox in enumerate(inboxes)]
        arrived = self.wire.send([outbox.messages for outbox in passed])
        own, forwarded = [], []
        for rank, first, second in zip(self.ranks, inboxes, arrived, strict=True):
            done = rank.compute(concatenated([first, second]))
            own.append(done[: first.count])
            forwarded.append(done[first.count :])
        back = self.wire.answer(
            arrived, forwarded, [box.messages.count for box in passed]
        )
        return [
            _added(rows, outbox, more)
            for rows, outbox, more in zip(own, passed, back, strict=True)
        ]

    def _onward(self, rank: int, inbox: Messages) -> Outbox:
        """Pack what a relay passes on: unmerged, or one per GPU of its domain."""
        if self._traffic != "dedup_domain":
            owner_N = torch.nonzero(inbox.final_N != rank).flatten()
            next_N = inbox.final_N[owner_N]
        else:
            foreign_N = self._domain_G[inbox.sender_N] != self._domain_G[rank]
            owner_N, next_N = self._touched(inbox.slots_NM)
            mine = self._domain_G[next_N] == self._domain_G[rank]
            keep = foreign_N[owner_N] & mine & (next_N != rank)
            owner_N, next_N = owner_N[keep], next_N[keep]
        order = torch.argsort(next_N, stable=True)
        taken = inbox.take(owner_N[order])
        messages = _packed(
            taken.payload_NH,
            taken.slots_NM,
            taken.gates_NM,
            taken.final_N,
            next_N[order],
        )
        return Outbox(messages=messages, owner_N=owner_N[order])

    def _first_stop(self, rank: int, final_N: Tensor) -> Tensor:
        """Return where messages go first: their GPU, or a relay."""
        if not self._relays:
            return final_N
        domain_N = self._domain_G[final_N]
        far_N = domain_N != self._domain_G[rank]
        if self._endpoint == "pxn":
            relay_N = self._relay_GN[final_N, self._domain_G[rank]]
            far_N &= relay_N != rank
        else:
            relay_N = self._relay_GN[rank][domain_N]
        return torch.where(far_N, relay_N, final_N)

    def _holder(self, slot_N: Tensor) -> Tensor:
        return torch.div(slot_N, self._slots_GJ.shape[1], rounding_mode="floor")

    def _touched(self, slots_NM: Tensor) -> tuple[Tensor, Tensor]:
        """Return every distinct (row, GPU) that headers name, by row, then GPU."""
        row, column = torch.nonzero(slots_NM >= 0, as_tuple=True)
        gpus = self._ranks
        keys = torch.unique(row * gpus + self._holder(slots_NM[row, column]))
        return torch.div(keys, gpus, rounding_mode="floor"), keys % gpus


def _packed(
    payload_NH: Tensor,
    slots_NM: Tensor,
    gates_NM: Tensor | None,
    final_N: Tensor,
    next_N: Tensor,
) -> Messages:
    """Messages that leave: the wire writes sender and row on them."""
    unset_N = torch.full_like(next_N, -1)
    return Messages(
        payload_NH=payload_NH,
        slots_NM=slots_NM,
        gates_NM=gates_NM,
        final_N=final_N,
        next_N=next_N,
        sender_N=unset_N,
        row_N=unset_N,
    )


def _added(total: Tensor, outbox: Outbox, rows_NH: Tensor) -> Tensor:
    """Add answers to the rows they belong to."""
    if outbox.weight_N is not None:
        rows_NH = rows_NH * outbox.weight_N[:, None]
    return total.index_add(0, outbox.owner_N, rows_NH)
