"""The decoder against numpy loops written from the formulas."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.executor.gating.gate import Gate
from planner.executor.model.config import DecoderConfig, GroupedDims, LatentDims
from planner.executor.model.sized import decoder_config
from planner.workload.presets import load_model, preset_names
from tests.unit.executor.model.by_hand import decoded, weights_of
from tests.unit.executor.model.toys import KINDS, config_of, left_padded

torch = pytest.importorskip("torch")

from planner.executor.model.attention.kernel import attend  # noqa: E402
from planner.executor.model.attention.latent import LatentAttention  # noqa: E402
from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.model.rotary import rotate  # noqa: E402

pytestmark = pytest.mark.torch


def drawn(config: DecoderConfig, seed: int = 0, *, absorbed: bool | None = None) -> Any:
    """A decoder in float64 with no weight left at what it begins with."""
    torch.manual_seed(seed)
    model = Decoder(config).double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.RMSNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, LatentAttention):
            module.absorbed = absorbed
    for moe in model.moe.values():
        moe.bias.uniform_(-0.2, 0.2)
    return model


def assert_by_hand(model: Any, lengths: list[int], seed: int = 0) -> None:
    """Law: logits of left-padded texts are those of the loops, text by text."""
    tokens, mask = left_padded(lengths, np.random.default_rng(seed))
    with torch.no_grad():
        found = model(torch.from_numpy(tokens), mask_BS=torch.from_numpy(mask)).numpy()
    for row in range(len(lengths)):
        text = tokens[row][mask[row]].tolist()
        wanted = decoded(text, weights_of(model), model.config)
        error = np.abs(found[row][mask[row]] - wanted).max()
        assert error <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_loops(
    kind: str, activation: str, absorbed: bool
) -> None:
    """Law: every kind of attention and expert is what its formulas say."""
    config = config_of(KINDS[kind], activation=activation, layers=2)
    assert_by_hand(drawn(config, absorbed=absorbed), [6, 1, 4])


@pytest.mark.parametrize(
    "gate",
    [
        Gate(experts=8, top_k=3, scores="softmax_of_chosen"),
        Gate(experts=8, top_k=1, scores="sigmoid", scale=2.5),
        Gate(experts=8, top_k=3, normalise=False, groups=4, kept_groups=2),
        Gate(
            experts=8,
            top_k=2,
            scores="sigmoid",
            groups=2,
            kept_groups=1,
            group_score="best_two",
        ),
    ],
)
def test_the_gate_of_the_config_decides(gate: Gate) -> None:
    """Law: the layer's choice and weights are the gate's."""
    config = config_of(KINDS["grouped"], gate=gate, layers=2, shared_ffn=0, tied=False)
    assert_by_hand(drawn(config), [5, 3])


@pytest.mark.parametrize("name", preset_names())
def test_every_known_model_runs_at_toy_size(name: str) -> None:
    """Law: each preset's own mechanisms together are what the loops say."""
    config = decoder_config(load_model(name), hidden=32, layers=4, vocab=50, context=16)
    assert_by_hand(drawn(config), [4, 2])


@st.composite
def configs(draw: Any) -> DecoderConfig:
    """Decoders of few values and any shape."""
    kv_heads, even = draw(st.integers(1, 3)), st.sampled_from([2, 4, 6])
    width = st.integers(1, 5)
    attention = draw(
        st.one_of(
            st.builds(
                GroupedDims,
                heads=st.integers(1, 3).map(lambda group: group * kv_heads),
                kv_heads=st.just(kv_heads),
                head_dim=even,
            ),
            st.builds(
                LatentDims,
                heads=st.integers(1, 3),
                q_lora_rank=st.integers(0, 4),
                kv_lora_rank=width,
                rope_head_dim=even,
                head_dim=width,
                v_head_dim=width,
            ),
        )
    )
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    return DecoderConfig(
        vocab=50,
        context=8,
        hidden=draw(st.integers(1, 9)),
        layers=layers,
        dense_layers=draw(st.integers(0, layers)),
        expert_ffn=draw(width),
        shared_ffn=draw(st.integers(0, 3)),
        dense_ffn=draw(width),
        attention=attention,
        gate=Gate(experts=experts, top_k=draw(st.integers(1, experts))),
        activation=draw(st.sampled_from(["swiglu", "gelu"])),
        tied=draw(st.booleans()),
        unrouted_ids=tuple(draw(st.lists(st.integers(0, 49), max_size=20))),
    )


@given(
    config=configs(),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    absorbed=st.sampled_from([None, False, True]),
)
@settings(max_examples=40, deadline=None)
def test_any_decoder_is_what_the_loops_say(
    config: DecoderConfig, lengths: list[int], absorbed: bool | None
) -> None:
    """Law: no size and no combination of kinds is special."""
    assert_by_hand(drawn(config, absorbed=absorbed), lengths)


def test_a_pair_turns_by_its_position() -> None:
    """Law: by hand: (1, 0) at position p is (cos p, sin p); slower for later pairs."""
    x = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    found = rotate(x, torch.tensor([[3]]))[0, 0, 0].tolist()
    slow = 3 * 10000**-0.5
    wanted = [math.cos(3), math.cos(slow), math.sin(3), math.sin(slow)]
    assert found == pytest.approx(wanted, abs=1e-6)


def test_equal_scores_give_the_mean_of_what_is_seen() -> None:
    """Law: by hand: a query of zeros looks at all it may see alike."""
    q, k = torch.zeros(1, 2, 2, 1), torch.ones(1, 3, 1, 1)
    v = torch.tensor([3.0, 9.0, 27.0]).view(1, 3, 1, 1)
    mask = torch.tensor([[[True, True, False], [True, True, True]]])
    found = attend(q, k, v, mask, scale=1.0).flatten().tolist()
    assert found == pytest.approx([6.0, 6.0, 13.0, 13.0])
