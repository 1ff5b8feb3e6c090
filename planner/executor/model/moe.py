"""A Mixture-of-Experts layer whose routed experts may be computed elsewhere."""

from collections.abc import Callable
from functools import wraps
from typing import TypeAlias

import torch
from torch import Tensor, nn

from planner.executor.gating.choice import choose, weigh
from planner.executor.model.config import DecoderConfig
from planner.executor.model.feed_forward import EXPERT_FNS, FeedForward, inner_width
from planner.executor.stepping import Steps, finish

CombineFn: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps tokens [T, H], ids [T, K] and gates [T, K] to routed outputs [T, H]."""
RoutedFn: TypeAlias = Callable[[Tensor, Tensor, Tensor], Steps[Tensor]]
"""A :data:`CombineFn` in steps: it pauses while rows travel."""


def at_once(combine: CombineFn) -> RoutedFn:
    """Turn a function that waits for nothing into one that never pauses."""

    @wraps(combine)
    def routed(x: Tensor, ids: Tensor, gates: Tensor) -> Steps[Tensor]:
        yield from ()
        return combine(x, ids, gates)

    return routed


class MoELayer(nn.Module):
    """Shared experts plus ``top_k`` routed experts per token.

    Attributes
    ----------
    routed
        Computes the routed experts; here by default. Set it to compute them
        elsewhere, or to look at the routing; ``compute_here`` sets it back.
    w_in, w_out
        Expert weights ``[E, H, W]`` (W is 2F for SwiGLU, else F) and ``[E, F, H]``.
    shared
        Shared experts as one block that every token passes, or None.
    router, bias
        Logits come from ``[H, E]``; the bias ``[E]`` takes part in the choice only,
        to balance load.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        experts, hidden, ffn = config.experts, config.hidden, config.expert_ffn
        width = inner_width(config.activation, ffn)
        self.gate = config.gate
        self.apply_expert = EXPERT_FNS[config.activation]
        self.shared = (
            FeedForward(hidden, config.shared_ffn, config.activation)
            if config.shared_ffn
            else None
        )
        self.router = nn.Parameter(torch.randn(hidden, experts) * 0.5 * hidden**-0.5)
        self.register_buffer("bias", torch.zeros(experts))
        self.w_in = nn.Parameter(torch.randn(experts, hidden, width) * hidden**-0.5)
        self.w_out = nn.Parameter(torch.randn(experts, ffn, hidden) * 0.6 * ffn**-0.5)
        self.routed: RoutedFn = at_once(self.combine_local)

    @property
    def expert_weights(self) -> tuple[Tensor, Tensor]:
        """Stacked expert weights ``[E, H, W]`` and ``[E, F, H]``."""
        return self.w_in, self.w_out

    def compute_here(self) -> None:
        """Let this module compute the routed experts itself again."""
        self.routed = at_once(self.combine_local)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Choose experts for tokens ``[T, H]``.

        Returns
        -------
        ids, gates
            Expert ids ``[T, K]`` (int64) in order of descending selection score
            (with the bias), and gates ``[T, K]`` as the config's gate makes them.
        """
        return choose(self.gate, self.logits(x), self.bias)

    def weigh(self, x: Tensor, ids: Tensor) -> Tensor:
        """Return the gates of experts ``[T, K]`` that were chosen already."""
        return weigh(self.gate, self.logits(x), ids)

    def combine_local(self, x: Tensor, ids: Tensor, gates: Tensor) -> Tensor:
        """Compute all routed experts here: sort tokens by expert, then loop."""
        order = torch.argsort(ids.reshape(-1), stable=True)
        rows = order // ids.shape[1]
        sizes = torch.bincount(ids.reshape(-1), minlength=len(self.bias)).tolist()
        done = [
            self.apply_expert(part, w_in, w_out)
            for part, w_in, w_out in zip(
                x[rows].split(sizes),
                self.w_in.unbind(0),
                self.w_out.unbind(0),
                strict=True,
            )
        ]
        weighted = torch.cat(done) * gates.reshape(-1)[order, None]
        # Gates are in float32 at least, so sums over experts are, too.
        total = torch.zeros_like(x, dtype=weighted.dtype)
        return total.index_add(0, rows, weighted).to(x.dtype)

    def steps(
        self,
        x_TH: Tensor,
        rows_N: Tensor | None = None,
        routed: RoutedFn | None = None,
    ) -> Steps[Tensor]:
        """Return shared plus routed outputs ``[T, H]``.

        The shared experts compute while the first rows travel.

        Parameters
        ----------
        rows_N
            The tokens that routed experts see; None: all. The others (padding)
            are sent nowhere and get the shared part alone.
        routed
            Computes the routed experts this once; None: as the layer is set.
        """
        some = x_TH if rows_N is None else x_TH[rows_N]
        travelling = (routed or self.routed)(some, *self.route(some))
        y_TH, shared_TH = yield from _meanwhile(travelling, lambda: self._shared(x_TH))
        if rows_N is not None:
            y_TH = torch.zeros_like(x_TH).index_copy(0, rows_N, y_TH)
        return y_TH if shared_TH is None else shared_TH + y_TH

    def forward(self, x: Tensor) -> Tensor:
        """Return shared plus routed outputs for tokens ``[..., H]``."""
        return finish(self.steps(x.reshape(-1, x.shape[-1]))).view_as(x)

    def logits(self, x_TH: Tensor) -> Tensor:
        """Return what the router makes of tokens ``[T, H]``, in float32 at least."""
        wide = torch.promote_types(x_TH.dtype, torch.float32)
        return x_TH.to(wide) @ self.router.to(wide)

    def _shared(self, x_TH: Tensor) -> Tensor | None:
        return None if self.shared is None else self.shared(x_TH)


def _meanwhile(
    steps: Steps[Tensor], work: Callable[[], Tensor | None]
) -> Steps[tuple[Tensor, Tensor | None]]:
    """Do ``work`` while that travels which ``steps`` waits for first."""
    try:
        pending = next(steps)
    except StopIteration as end:
        return end.value, work()
    done = work()
    yield pending
    return (yield from steps), done
