"""A synthetic trace with the skew and correlations that real routers show."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import UsageError
from planner.workload.presets import load_model
from planner.workload.synth.latent import (
    Floats,
    HiddenLayers,
    Texts,
    cut_texts,
    draw_router,
    draw_token_ids,
)
from planner.workload.synth.load import Choice, draw_target, fit_bias
from planner.workload.synth.presets import PRESETS, SynthPreset
from planner.workload.synth.router import choose, score
from planner.workload.trace_writer import write_trace

SEQUENCE_TOKENS = 256
_PHASES = ("prefill", "decode")
# Scores of this many tokens are held at a time (32 MB at 256 experts), and as many
# rows, evenly spread over the trace, decide the bias.
_CHUNK_TOKENS = 32_768


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedTrace:
    """What to draw; ``sequences`` is 0 for sequences of 256 tokens."""

    preset: str
    tokens: int
    sequences: int = 0
    tags: int = 4
    seed: int = 0
    phase: str = "prefill"

    def __post_init__(self) -> None:
        rules = (
            (self.preset in PRESETS, "KIND", self.preset, f"in {', '.join(PRESETS)}"),
            (1 <= self.tokens < 2**32, "--tokens", self.tokens, "from 1 to 2^32 - 1"),
            (
                0 <= self.sequences <= self.tokens,
                "--sequences",
                self.sequences,
                f"from 0 to --tokens = {self.tokens}",
            ),
            (1 <= self.tags <= 1000, "--tags", self.tags, "from 1 to 1000"),
            (self.seed >= 0, "--seed", self.seed, ">= 0"),
            (self.phase in _PHASES, "--phase", self.phase, "prefill or decode"),
        )
        for holds, flag, value, rule in rules:
            if not holds:
                raise UsageError(f"{flag} {value} must be {rule}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Drawn texts and, layer by layer, the experts of their tokens [T, K]."""

    texts: Texts
    token_id_T: NDArray[np.int64]
    chosen_TK: tuple[NDArray[Any], ...]


def write_calibrated(path: Path, trace: CalibratedTrace) -> None:
    """Draw a trace and write it, labelled ``synthetic: PRESET``.

    In prefill one sequence is an engine step, in decode one token of every sequence.
    """
    preset = PRESETS[trace.preset]
    model = load_model(preset.model)
    choice = choice_of(preset)
    sequences = trace.sequences or -(-trace.tokens // SEQUENCE_TOKENS)
    texts = cut_texts(trace.tokens, sequences, trace.tags)
    routing = draw_routing(preset, choice, texts, (len(model.moe_layers), trace.seed))
    write_trace(
        path,
        metadata={
            "model": f"synthetic: {preset.name}, shaped as {preset.model}",
            "synthetic": preset.name,
            "num_experts": choice.experts,
            "top_k": choice.top_k,
            "n_group": choice.groups,
            "topk_group": choice.kept,
            "order": "router",
            "seed": trace.seed,
            "generator": {"latent": asdict(preset.latent), "load": asdict(preset.load)},
            "source": "synthetic: drawn from a latent model, recorded nowhere",
        },
        seq_id=texts.sequence_T,
        pos=texts.pos_T,
        step=texts.sequence_T if trace.phase == "prefill" else texts.pos_T,
        token_id=routing.token_id_T,
        tag=[f"topic{tag}" for tag in texts.tag_T],
        phase=trace.phase,
        experts=dict(zip(model.moe_layers, routing.chosen_TK, strict=True)),
    )


def choice_of(preset: SynthPreset) -> Choice:
    """Return how many experts the preset's model chooses, and from which groups."""
    model = load_model(preset.model)
    return Choice(
        experts=model.experts,
        top_k=model.top_k,
        groups=model.routing_groups,
        kept=preset.kept_groups,
    )


def draw_routing(
    preset: SynthPreset, choice: Choice, texts: Texts, layers_and_seed: tuple[int, int]
) -> Routing:
    """Draw token ids and the choices of every layer."""
    layers, seed = layers_and_seed
    rng = np.random.default_rng(seed)
    token_id_T = draw_token_ids(rng, preset.latent, texts)
    hidden = HiddenLayers(rng, preset.latent, texts, token_id_T)
    small = np.uint8 if choice.experts <= 256 else np.int16
    chosen = []
    for _ in range(layers):
        router_RE = draw_router(rng, preset.latent.dimensions, choice.experts)
        target_E = draw_target(rng, preset.load, choice)
        hidden_TR = hidden.next_layer()
        chosen.append(_route(hidden_TR, router_RE, target_E, choice).astype(small))
    return Routing(texts=texts, token_id_T=token_id_T, chosen_TK=tuple(chosen))


def _route(
    hidden_TR: Floats,
    router_RE: Floats,
    target_E: NDArray[np.float64],
    choice: Choice,
) -> NDArray[np.int16]:
    """Fit one layer's bias on spread rows, then choose for all rows."""
    stride = -(-hidden_TR.shape[0] // _CHUNK_TOKENS)
    sample = score(np.ascontiguousarray(hidden_TR[::stride]), router_RE)
    bias_E = fit_bias(sample, target_E, choice)
    limit = {"top_k": choice.top_k, "groups": choice.groups, "kept": choice.kept}
    parts = [
        choose(score(hidden_TR[at : at + _CHUNK_TOKENS], router_RE), bias_E, **limit)
        for at in range(0, hidden_TR.shape[0], _CHUNK_TOKENS)
    ]
    return np.concatenate(parts)
