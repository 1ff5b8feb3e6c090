"""Prefill and decode with a cache are one forward over the whole text."""

from functools import partialmethod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import ModelError
from planner.executor.model.config import LatentDims
from tests.unit.executor.model.toys import KINDS, config_of, left_padded

torch = pytest.importorskip("torch")

from planner.executor.model.attention.latent import LatentAttention  # noqa: E402
from planner.executor.model.context import KVCache, NothingKept, counted  # noqa: E402
from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.stepping import finish  # noqa: E402

pytestmark = pytest.mark.torch


def model_of(kind: str, *, absorbed: bool | None = None, **changes: Any) -> Any:
    torch.manual_seed(3)
    model = Decoder(config_of(KINDS[kind], **changes)).eval()
    for module in model.modules():
        if isinstance(module, LatentAttention):
            module.absorbed = absorbed
    return model


def in_parts(model: Any, tokens: Any, mask: Any, ends: list[int], cache: Any) -> Any:
    """Logits of a text given part by part."""
    positions, parts = counted(mask), []
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        part = slice(first, last)
        parts.append(
            model(
                tokens[:, part],
                positions_BS=positions[:, part],
                mask_BS=mask[:, part],
                context=cache,
            )
        )
    return torch.cat(parts, dim=1)


def assert_near(found: Any, wanted: Any) -> None:
    """Law: apart by at most 1e-5 of the greatest value."""
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("absorbed", [False, True, None])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_prefill_and_decode_are_one_forward(kind: str, absorbed: bool | None) -> None:
    """Law: with a cache, logits are those of the whole text, whatever the lengths."""
    model = model_of(kind, absorbed=absorbed)
    rng = np.random.default_rng(5)
    tokens, mask = map(torch.from_numpy, left_padded([12, 8, 3, 1], rng))
    whole = model(tokens, mask_BS=mask)
    for ends in ([7, 8, 9, 10, 11, 12], [4, 12], list(range(1, 13))):
        found = in_parts(model, tokens, mask, ends, KVCache())
        assert_near(found[mask], whole[mask])


@given(data=st.data())
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_absorbed_is_naive(data: st.DataObject) -> None:
    """Law: both forms of latent attention give the same outputs in float32."""
    size = st.integers(1, 24)
    dims = LatentDims(
        heads=data.draw(st.integers(1, 5)),
        q_lora_rank=data.draw(st.integers(0, 9)),
        kv_lora_rank=data.draw(size),
        rope_head_dim=2 * data.draw(size),
        head_dim=data.draw(size),
        v_head_dim=data.draw(size),
    )
    torch.manual_seed(data.draw(st.integers(0, 9)))
    attention = LatentAttention(16, dims, layer=0)
    x = torch.randn(2, data.draw(st.integers(1, 30)), 16)
    positions = torch.arange(x.shape[1]).expand(2, -1)
    found = []
    for attention.absorbed in (False, True):
        steps = attention.steps(
            x, positions_BS=positions, mask_BSC=None, context=NothingKept()
        )
        found.append(finish(steps))
    assert_near(found[1], found[0])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_cache_holds_what_the_kind_says(kind: str) -> None:
    """Law: bytes per token and layer are the kind's cached values at the precision."""
    model, cache = model_of(kind), KVCache()
    tokens = torch.arange(10).view(2, 5)
    mask = torch.ones(2, 5, dtype=torch.bool)
    in_parts(model, tokens, mask, [3, 4, 5], cache)
    dims = KINDS[kind]
    assert cache.columns == 5
    assert cache.nbytes == 2 * 5 * model.config.layers * dims.cached_values * 4


def test_positions_are_needed_with_a_cache() -> None:
    """Law: what came before cannot be guessed."""
    with pytest.raises(ModelError, match="positions"):
        model_of("grouped")(torch.zeros(1, 2, dtype=torch.int64), context=KVCache())


def test_padding_is_not_counted() -> None:
    """Law: positions count real tokens from 0, or on from what came before."""
    mask = torch.tensor([[False, True, True], [True, True, False]])
    assert counted(mask).tolist() == [[-1, 0, 1], [0, 1, -1]]
    before = torch.tensor([4, 0])
    assert counted(mask, before).tolist() == [[-1, 4, 5], [0, 1, -1]]


@torch.no_grad()
def test_decoding_never_makes_keys_of_all_heads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Law: where the cache holds more than the new tokens, queries are absorbed."""
    model = model_of("latent", layers=1)
    called: list[str] = []
    for form in ("_naive", "_absorbed"):

        def noting(*args: Any, form: str = form, real: Any = None) -> Any:
            called.append(form)
            return real(*args)

        real = getattr(LatentAttention, form)
        monkeypatch.setattr(LatentAttention, form, partialmethod(noting, real=real))
    tokens, mask = torch.arange(5)[None], torch.ones(1, 5, dtype=torch.bool)
    in_parts(model, tokens, mask, [3, 4, 5], KVCache())
    assert called == ["_naive", "_absorbed", "_absorbed"]
