"""A small Mixture-of-Experts decoder in torch, real in every part of routing.

The router scores experts with a sigmoid, selects the ``top_k`` by score plus
a bias that only balances load, and weights them by their unbiased scores. An
executor replaces how routed experts are computed by setting
:attr:`MoELayer.combine_fn`; everything else stays the same.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.errors import ModelError
from planner.executor.spec import TinyMoESpec

CombineFn: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps tokens [T, H], ids [T, K] and gates [T, K] to routed outputs [T, H]."""


class SwiGLU(nn.Module):
    """Feed-forward block with a gated SiLU."""

    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.randn(hidden, 2 * ffn) * hidden**-0.5)
        self.w_out = nn.Parameter(torch.randn(ffn, hidden) * 0.3 * ffn**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for tokens ``[..., H]``."""
        return swiglu(x, self.w_in, self.w_out)


def swiglu(x: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
    """Apply one SwiGLU expert given its weights ``[H, 2F]`` and ``[F, H]``."""
    gate, up = (x @ w_in).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ w_out


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions."""

    def __init__(self, spec: TinyMoESpec) -> None:
        super().__init__()
        self.heads, size = spec.heads, spec.hidden // spec.heads
        self.w_qkv = nn.Parameter(
            torch.randn(spec.hidden, 3 * spec.hidden) * spec.hidden**-0.5
        )
        self.w_o = nn.Parameter(
            torch.randn(spec.hidden, spec.hidden) * 0.3 * spec.hidden**-0.5
        )
        rate = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
        angle = torch.arange(spec.context, dtype=torch.float32)[:, None] * rate
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def _rotate(self, x: Tensor) -> Tensor:
        cos, sin = self.cos[: x.shape[-2]], self.sin[: x.shape[-2]]
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return attention outputs for sequences ``[B, S, H]``."""
        batch, length, hidden = x.shape
        qkv = (x @ self.w_qkv).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(
            self._rotate(q), self._rotate(k), v, is_causal=True
        )
        return y.transpose(1, 2).reshape(batch, length, hidden) @ self.w_o


class MoELayer(nn.Module):
    """One shared expert plus ``top_k`` routed experts per token.

    Attributes
    ----------
    combine_fn
        Computes the routed experts; local by default. Set it to compute them
        elsewhere, or to look at the routing.
    w_in, w_out
        Expert weights ``[E, H, 2F]`` and ``[E, F, H]``.
    bias
        Load-balancing bias ``[E]``; it takes part in selection only.
    """

    def __init__(self, spec: TinyMoESpec) -> None:
        super().__init__()
        experts, hidden, ffn = spec.experts, spec.hidden, spec.expert_ffn
        self.top_k = spec.top_k
        self.shared = SwiGLU(hidden, spec.shared_ffn)
        self.router = nn.Parameter(torch.randn(hidden, experts) * 0.5 * hidden**-0.5)
        self.register_buffer("bias", torch.zeros(experts))
        self.w_in = nn.Parameter(torch.randn(experts, hidden, 2 * ffn) * hidden**-0.5)
        self.w_out = nn.Parameter(torch.randn(experts, ffn, hidden) * 0.6 * ffn**-0.5)
        self.combine_fn: CombineFn = self.combine_local

    @property
    def expert_weights(self) -> tuple[Tensor, Tensor]:
        """Stacked expert weights ``[E, H, 2F]`` and ``[E, F, H]``."""
        return self.w_in, self.w_out

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Choose experts for tokens ``[T, H]``.

        Returns
        -------
        ids, gates
            Expert ids ``[T, K]`` (int64) in order of descending selection
            score (sigmoid plus bias), and gates ``[T, K]`` that sum to one.
        """
        scores = torch.sigmoid(x @ self.router)
        ids = torch.topk(scores.detach() + self.bias, self.top_k, dim=-1).indices
        chosen = scores.gather(-1, ids)
        return ids, chosen / chosen.sum(dim=-1, keepdim=True)

    def combine_local(self, x: Tensor, ids: Tensor, gates: Tensor) -> Tensor:
        """Compute all routed experts here: sort tokens by expert, then loop."""
        order = torch.argsort(ids.reshape(-1), stable=True)
        rows = order // self.top_k
        sizes = torch.bincount(ids.reshape(-1), minlength=len(self.bias)).tolist()
        parts = x[rows].split(sizes)
        done = [
            swiglu(part, w_in, w_out)
            for part, w_in, w_out in zip(
                parts, self.w_in.unbind(0), self.w_out.unbind(0), strict=True
            )
        ]
        weighted = torch.cat(done) * gates.reshape(-1)[order, None]
        return torch.zeros_like(x).index_add(0, rows, weighted)

    def forward(self, x: Tensor) -> Tensor:
        """Return shared plus routed outputs for tokens ``[..., H]``."""
        flat = x.reshape(-1, x.shape[-1])
        ids, gates = self.route(flat)
        return (self.shared(flat) + self.combine_fn(flat, ids, gates)).view_as(x)


class Block(nn.Module):
    """Attention and a dense or routed feed-forward part, both pre-normalised."""

    def __init__(self, spec: TinyMoESpec, *, moe: bool) -> None:
        super().__init__()
        self.norm_attn = nn.RMSNorm(spec.hidden, eps=1e-5)
        self.attn = Attention(spec)
        self.norm_ffn = nn.RMSNorm(spec.hidden, eps=1e-5)
        self.ffn = MoELayer(spec) if moe else SwiGLU(spec.hidden, spec.dense_ffn)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream ``[B, S, H]`` after this block."""
        x = x + self.attn(self.norm_attn(x))
        return x + self.ffn(self.norm_ffn(x))


class TinyMoE(nn.Module):
    """The decoder: tied embeddings, ``spec.layers`` blocks, logits.

    Parameters
    ----------
    spec
        Dimensions of the model.
    """

    def __init__(self, spec: TinyMoESpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed = nn.Parameter(torch.randn(spec.vocab, spec.hidden) * 0.05)
        self.blocks = nn.ModuleList(
            Block(spec, moe=layer in spec.moe_layers) for layer in range(spec.layers)
        )
        self.norm = nn.RMSNorm(spec.hidden, eps=1e-5)

    @property
    def moe(self) -> dict[int, MoELayer]:
        """The layers with experts by their layer index."""
        return {layer: self.blocks[layer].ffn for layer in self.spec.moe_layers}

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits ``[B, S, V]`` for token ids ``[B, S]``."""
        if tokens.shape[-1] > self.spec.context:
            raise ModelError(
                f"must be at most {self.spec.context} tokens long",
                where="sequence",
                value=int(tokens.shape[-1]),
            )
        x = F.embedding(tokens, self.embed)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.T


def save(model: TinyMoE, npz_path: Path, json_path: Path, info: dict[str, Any]) -> None:
    """Write the weights as float16 arrays and ``info`` plus the spec as JSON."""
    arrays = {
        name: tensor.detach().cpu().numpy().astype(np.float16)
        for name, tensor in sorted(model.state_dict().items())
    }
    np.savez_compressed(npz_path, **arrays)
    document = {"spec": model.spec.to_dict(), **info}
    json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load_model(npz_path: Path, json_path: Path) -> TinyMoE:
    """Read a model that ``save`` wrote; weights become float32.

    Raises
    ------
    ModelError
        If the arrays do not fit the dimensions in the JSON file.
    """
    document = json.loads(json_path.read_text(encoding="utf-8"))
    model = TinyMoE(TinyMoESpec.from_dict(document["spec"]))
    with np.load(npz_path, allow_pickle=False) as arrays:
        state = {
            name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays
        }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"must hold the arrays of the spec: {error}", where=npz_path.name
        ) from error
    model.eval()
    return model
