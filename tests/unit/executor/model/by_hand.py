"""The decoder once more in numpy float64: a token, a head and a value at a time.

Written from the papers' formulas, apart from the executor's model; reads nothing of
it but its dimensions and weights.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.executor.model.config import DecoderConfig, GroupedDims, LatentDims
from tests.unit.executor.gating.gates_by_hand import chosen_by_hand

Array = NDArray[np.float64]
Weights = dict[str, Array]


def weights_of(module: Any) -> Weights:
    """Arrays of a module by name, in float64."""
    return {
        name: tensor.detach().double().numpy()
        for name, tensor in module.state_dict().items()
    }


def below(weights: Weights, prefix: str) -> Weights:
    """The arrays whose names begin so, without that beginning."""
    size = len(prefix)
    return {k[size:]: v for k, v in weights.items() if k.startswith(prefix)}


def normed(x: Array, weight: Array) -> Array:
    return x / math.sqrt(float(np.mean(x * x)) + 1e-5) * weight


def turned(x: Array, position: int) -> Array:
    """Pair i is the complex number x[i] + i x[i + D/2], turned by its angle."""
    half = len(x) // 2
    out = np.empty(len(x))
    for i in range(half):
        angle = position * 10000.0 ** (-2 * i / len(x))
        z = complex(x[i], x[half + i]) * complex(math.cos(angle), math.sin(angle))
        out[i], out[half + i] = z.real, z.imag
    return out


def weighed(scores: list[float], values: list[Array]) -> Array:
    """Softmax of the scores, times the values."""
    top = max(scores)
    odds = [math.exp(score - top) for score in scores]
    return np.sum([o / sum(odds) * v for o, v in zip(odds, values, strict=True)], 0)


def grouped(x_SH: Array, w: Weights, dims: GroupedDims) -> Array:
    """Grouped-query attention of one sequence."""
    size, group = dims.head_dim, dims.heads // dims.kv_heads
    w_q = w["w_qkv"][:, : dims.heads * size]
    w_k = w["w_qkv"][:, dims.heads * size : (dims.heads + dims.kv_heads) * size]
    w_v = w["w_qkv"][:, (dims.heads + dims.kv_heads) * size :]
    rows = []
    for s in range(len(x_SH)):
        heads = []
        for head in range(dims.heads):
            own = slice(head * size, (head + 1) * size)
            shared = slice(head // group * size, (head // group + 1) * size)
            q = turned(x_SH[s] @ w_q[:, own], s)
            scores = [
                float(q @ turned(x_SH[c] @ w_k[:, shared], c)) / math.sqrt(size)
                for c in range(s + 1)
            ]
            values = [x_SH[c] @ w_v[:, shared] for c in range(s + 1)]
            heads.append(weighed(scores, values))
        rows.append(np.concatenate(heads) @ w["w_o"])
    return np.array(rows)


def latent(x_SH: Array, w: Weights, dims: LatentDims) -> Array:
    """Latent attention of one sequence: arXiv:2405.04434, equations 37 to 47."""
    rank, rope, plain = dims.kv_lora_rank, dims.rope_head_dim, dims.head_dim
    rows = []
    for s in range(len(x_SH)):
        source = x_SH[s]
        if dims.q_lora_rank:
            source = normed(source @ w["w_q_down"], w["norm_q.weight"])
        heads = []
        for head in range(dims.heads):
            begin = head * (plain + rope)
            q = source @ w["w_q"][:, begin : begin + plain]
            q_r = turned(source @ w["w_q"][:, begin + plain : begin + plain + rope], s)
            scores, values = [], []
            for c in range(s + 1):
                down = x_SH[c] @ w["w_kv_down"]
                c_kv = normed(down[:rank], w["norm_kv.weight"])
                k, k_r = c_kv @ w["w_k"][head], turned(down[rank:], c)
                dot = float(q @ k) + float(q_r @ k_r)
                scores.append(dot / math.sqrt(plain + rope))
                values.append(c_kv @ w["w_v"][head])
            heads.append(weighed(scores, values))
        rows.append(np.concatenate(heads) @ w["w_o"])
    return np.array(rows)


def mlp(x: Array, w_in: Array, w_out: Array, activation: str) -> Array:
    inner = x @ w_in
    if activation == "gelu":
        return (
            np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in inner]) @ w_out
        )
    gate, up = inner[: len(w_out)], inner[len(w_out) :]
    return np.array([g / (1 + math.exp(-g)) for g in gate]) * up @ w_out


def routed(x: Array, w: Weights, config: DecoderConfig) -> Array:
    """Routed experts of one token."""
    gate = config.gate
    options = {name: getattr(gate, name) for name in gate.__slots__}
    logits = (x @ w["router"]).tolist()
    ids, gates = chosen_by_hand(logits, w["bias"].tolist(), **options)
    return np.sum(
        [
            g * mlp(x, w["w_in"][e], w["w_out"][e], config.activation)
            for e, g in zip(ids, gates, strict=True)
        ],
        axis=0,
    )


def feed_forward(x: Array, token: int, w: Weights, config: DecoderConfig) -> Array:
    if "router" not in w:
        return mlp(x, w["w_in"], w["w_out"], config.activation)
    total = np.zeros(len(x))
    if token not in config.unrouted_ids:
        total += routed(x, w, config)
    if config.shared_ffn:
        total += mlp(x, w["shared.w_in"], w["shared.w_out"], config.activation)
    return total


def decoded(tokens: list[int], w: Weights, config: DecoderConfig) -> Array:
    """Logits of one sequence, [S, V]."""
    x = np.array([w["embed"][token] for token in tokens])
    for layer in range(config.layers):
        block = below(w, f"blocks.{layer}.")
        inputs = np.array([normed(row, block["norm_attn.weight"]) for row in x])
        own = below(block, "attn.")
        if isinstance(config.attention, GroupedDims):
            x = x + grouped(inputs, own, config.attention)
        else:
            x = x + latent(inputs, own, config.attention)
        ffn = below(block, "ffn.")
        for s, token in enumerate(tokens):
            inner = normed(x[s], block["norm_ffn.weight"])
            x[s] = x[s] + feed_forward(inner, token, ffn, config)
    out = w["embed"] if config.tied else w["head"]
    return np.array([out @ normed(row, w["norm.weight"]) for row in x])
