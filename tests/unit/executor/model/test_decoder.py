"""What padding, order, company and special ids may and may not change."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import ModelError
from tests.unit.executor.model.toys import KINDS, config_of, left_padded

torch = pytest.importorskip("torch")

from planner.executor.model.attention.latent import LatentAttention  # noqa: E402
from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.model.generate import generate  # noqa: E402
from planner.executor.model.moe import at_once  # noqa: E402
from planner.executor.stepping import finish, interleave  # noqa: E402

pytestmark = pytest.mark.torch


def model_of(kind: str, **changes: Any) -> Any:
    torch.manual_seed(7)
    return Decoder(config_of(KINDS[kind], **changes)).eval()


def text_of(*lengths: int) -> tuple[Any, Any]:
    """Ids and mask of random texts, padded on the left."""
    tokens, mask = left_padded(list(lengths), np.random.default_rng(len(lengths)))
    return torch.from_numpy(tokens), torch.from_numpy(mask)


def assert_near(found: Any, wanted: Any) -> None:
    """Law: apart by at most 1e-5 of the greatest value."""
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("kind", KINDS)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
@settings(max_examples=10, deadline=None)
def test_left_padding_and_company_change_nothing(kind: str, lengths: list[int]) -> None:
    """Law: a text in a padded batch has the logits it has alone."""
    model = model_of(kind)
    tokens, mask = text_of(*lengths)
    with torch.no_grad():
        together = model(tokens, mask_BS=mask)
        for row in range(len(lengths)):
            alone = model(tokens[row, mask[row]][None])[0]
            assert_near(together[row, mask[row]], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_the_id_of_padding_is_of_no_account(kind: str) -> None:
    """Law: padding is seen by nobody, to the bit."""
    model = model_of(kind)
    tokens, mask = text_of(9, 4, 1)
    other = torch.where(mask, tokens, (tokens + 13) % 50)
    with torch.no_grad():
        first, second = model(tokens, mask_BS=mask), model(other, mask_BS=mask)
    assert torch.equal(first[mask], second[mask])


@pytest.mark.parametrize("kind", KINDS)
def test_later_tokens_do_not_change_earlier_logits(kind: str) -> None:
    """Law: attention is causal, with a mask and without."""
    model = model_of(kind)
    tokens, mask = text_of(9, 7)
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 50
    for options in ({}, {"mask_BS": mask}):
        with torch.no_grad():
            first, second = model(tokens, **options), model(changed, **options)
        torch.testing.assert_close(first[:, 3:6], second[:, 3:6])
        assert not torch.allclose(first[:, 6], second[:, 6])


@pytest.mark.parametrize("kind", KINDS)
def test_only_distances_count(kind: str) -> None:
    """Law: a text whose positions all begin later has the same logits."""
    model = model_of(kind)
    tokens, _ = text_of(8, 8)
    positions = torch.arange(8).expand(2, 8)
    with torch.no_grad():
        first = model(tokens, positions_BS=positions)
        second = model(tokens, positions_BS=positions + torch.tensor([[0], [40]]))
        turned = model(tokens, positions_BS=positions.flip(1))
    assert_near(second, first)
    assert_near(model(tokens).detach(), first)
    assert not torch.allclose(turned, first, rtol=1e-3)


def routed_tokens(model: Any, tokens: Any, **options: Any) -> tuple[Any, list[int]]:
    """Logits, and how many tokens each layer with experts routed."""
    rows: list[int] = []
    for layer in model.moe.values():

        def note(x: Any, ids: Any, gates: Any, layer: Any = layer) -> Any:
            assert len(x) == len(ids) == len(gates)
            rows.append(len(x))
            return layer.combine_local(x, ids, gates)

        layer.routed = at_once(note)
    with torch.no_grad():
        logits = model(tokens, **options)
    return logits, rows


def test_padding_and_special_ids_are_not_routed() -> None:
    """Law: the routed experts see real tokens alone, and no special id."""
    model = model_of("grouped", unrouted_ids=(4, 9))
    tokens = torch.tensor([[9, 9, 1, 4, 5], [1, 2, 3, 9, 7]])
    mask = torch.tensor([[False, False, True, True, True], [True] * 5])
    assert routed_tokens(model, tokens, mask_BS=mask)[1] == [6, 6]
    assert routed_tokens(model, tokens)[1] == [6, 6]
    assert routed_tokens(model_of("grouped"), tokens, mask_BS=mask)[1] == [8, 8]


def test_a_batch_without_routed_tokens_still_runs() -> None:
    """Law: nothing to send is no special case."""
    model = model_of("latent", unrouted_ids=(4,))
    logits, rows = routed_tokens(model, torch.full((2, 3), 4))
    assert rows == [0, 0]
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_weight(kind: str) -> None:
    """Law: everything can be trained, in both forms of latent attention alike."""
    found = []
    for absorbed in (False, True):
        model = model_of(kind, tied=False, unrouted_ids=(0,))
        for module in model.modules():
            if isinstance(module, LatentAttention):
                module.absorbed = absorbed
        tokens, mask = text_of(30, 20, 25)
        logits = model(tokens, mask_BS=mask)
        target = torch.roll(tokens, -1, dims=1)[mask]
        torch.nn.functional.cross_entropy(logits[mask], target).backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        for name, grad in grads.items():
            assert grad is not None and bool(grad.isfinite().all()), name
            assert float(grad.abs().max()) > 0, name
        found.append(grads)
    for name, grad in found[0].items():
        assert_near(found[1][name], grad)


def test_padding_has_no_gradient() -> None:
    """Law: no loss depends on an id that only padding has."""
    model = model_of("latent", tied=False)
    tokens, mask = torch.tensor([[49, 49, 3, 5], [1, 2, 3, 4]]), torch.ones(2, 4) > 0
    mask[0, :2] = False
    model(tokens, mask_BS=mask)[mask].square().sum().backward()
    assert model.embed.grad[49].abs().max() == 0
    assert model.embed.grad[3].abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_decoding_is_that_without_a_cache(kind: str) -> None:
    """Law: each token is the likeliest after the whole text before it."""
    model = model_of(kind)
    tokens, mask = text_of(6, 2, 4)
    found = finish(generate(model, tokens, mask, 5))
    for row in range(3):
        text = tokens[row, mask[row]]
        for _ in range(5):
            with torch.no_grad():
                text = torch.cat([text, model(text[None])[0, -1:].argmax(-1)])
        assert text[-5:].tolist() == found[row].tolist()


def test_two_batches_in_turns_are_two_batches() -> None:
    """Law: passes of one model do not disturb each other."""
    model = model_of("grouped")
    (first, mask), (second, _) = text_of(6, 2), text_of(5)
    with torch.no_grad():
        both = interleave([model.steps(first, mask_BS=mask), model.steps(second)])
        assert torch.equal(both[0], model(first, mask_BS=mask))
        assert torch.equal(both[1], model(second))


def test_what_cannot_be_run_is_refused() -> None:
    """Law: a text longer than the context, and a prompt that ends in padding."""
    model = model_of("grouped", context=4)
    with pytest.raises(ModelError, match="5 must be at most 4 tokens long"):
        model(torch.zeros(1, 5, dtype=torch.int64))
    tokens, mask = text_of(5, 3)
    with pytest.raises(ModelError, match="5 must be at most 4"):
        model(tokens, mask_BS=mask)
    with pytest.raises(ModelError, match="pad left"):
        finish(generate(model, tokens, mask.flip(1), 1))
    with pytest.raises(ModelError, match="at most 4"):
        finish(generate(model, *text_of(3), 3))


def test_a_mask_outweighs_the_positions_given() -> None:
    """Law: padding is unseen, whatever number its position has."""
    model = model_of("latent")
    tokens, mask = text_of(6, 3)
    positions = torch.arange(6).expand(2, 6) - torch.tensor([[0], [3]])
    with torch.no_grad():
        wanted = model(tokens, mask_BS=mask)
        for number in (-3, 0, 5):
            given_BS = torch.where(mask, positions, number)
            found = model(tokens, mask_BS=mask, positions_BS=given_BS)
            assert torch.equal(found[mask], wanted[mask])
