"""What tests of parallelism send to ranks, and the unsharded model to compare with."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from planner.executor.model.config import AttentionDims, DecoderConfig
from planner.executor.model.context import KVCache
from planner.executor.model.decoder import Decoder
from planner.executor.parallel.assembly import ParallelDecoder
from planner.executor.parallel.pipeline import MicroBatch
from planner.executor.parallel.spec import ParallelSpec, Place
from planner.executor.placement import Placement
from planner.executor.precision.named import precision_named
from planner.executor.world.groups import World
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from tests.unit.executor.model.toys import config_of
from tests.unit.executor.placed import random_slots


def decoder_of(attention: AttentionDims, **changes: Any) -> Decoder:
    """The same small decoder in every process."""
    torch.manual_seed(5)
    return Decoder(config_of(attention, **changes))


def placement_of(
    config: DecoderConfig,
    spec: ParallelSpec,
    traffic: str = "copies",
    sets: int = 1,
    precision: str = "fp32",
) -> Placement:
    """Experts anywhere, some of them twice, some slots empty; two domains."""
    rng = np.random.default_rng(spec.ranks)
    ep, each = spec.ep // sets, spec.tp // spec.etp
    layout = ParallelLayout(
        domain_G=np.arange(spec.ep) * 2 // spec.ep,
        ep=ep,
        attention_groups=tuple(
            tuple(range(r * each, (r + 1) * each)) for r in range(spec.dp)
        ),
    )
    slots = config.experts // ep + 2
    if ep == 1:
        found = [np.append(np.arange(config.experts), [-1])[None]] * len(
            config.moe_layers
        )
    else:
        found = [
            random_slots(config.experts, ep, slots, rng) for _ in config.moe_layers
        ]
    plan = PlacementPlan(
        layer_numbers=config.moe_layers, slots_LGJ=np.stack(found).astype(np.int16)
    )
    return Placement(
        plan=plan,
        layout=layout,
        traffic=traffic,
        selection="even",
        endpoint="dest_forward" if traffic == "dedup_domain" else "local_nic",
        precision=precision_named(precision),
    )


def texts(
    config: DecoderConfig,
    replicas: int,
    batches: int,
    shape: tuple[int, int] = (2, 5),
) -> list[list[MicroBatch]]:
    """Left-padded texts of unlike lengths, by replica and micro-batch."""
    rows, width = shape
    rng = np.random.default_rng(2)
    found = []
    for replica in range(replicas):
        own = []
        for batch in range(batches):
            tokens = torch.from_numpy(
                rng.integers(config.vocab, size=(rows, width + batch))
            )
            mask = torch.ones_like(tokens, dtype=torch.bool)
            mask[0, : min(1 + replica, width - 2)] = False
            own.append(MicroBatch(tokens, mask))
        found.append(own)
    return found


def targets(batch: MicroBatch) -> Tensor:
    """The next token of each, -100 where none is to be guessed."""
    assert batch.mask_BS is not None
    following = batch.tokens_BS.roll(-1, dims=1)
    following[:, -1] = -100
    return following.masked_fill(~batch.mask_BS, -100)


def loss(logits: Tensor, batch: MicroBatch, tokens: int) -> Tensor:
    """Part of the mean over ``tokens`` tokens."""
    return (
        F.cross_entropy(logits.flatten(0, 1), targets(batch).flatten(), reduction="sum")
        / tokens
    )


def count(batches: list[MicroBatch]) -> int:
    """Tokens with something to guess."""
    return sum(int((targets(batch) >= 0).sum()) for batch in batches)


def unsharded(model: Decoder, all_texts: list[list[MicroBatch]]) -> tuple[Any, Tensor]:
    """Logits by replica and micro-batch, and the loss; gradients are left."""
    model.zero_grad()
    tokens = sum(count(own) for own in all_texts)
    logits = [[model(b.tokens_BS, mask_BS=b.mask_BS) for b in own] for own in all_texts]
    parts = [
        loss(found, batch, tokens)
        for own, by_batch in zip(all_texts, logits, strict=True)
        for batch, found in zip(own, by_batch, strict=True)
    ]
    total = torch.stack(parts).sum()
    total.backward()
    return logits, total.detach()


def parallel(
    world: World, model: Decoder, spec: ParallelSpec, placement: Placement | None
) -> ParallelDecoder:
    """This rank's part; the groups are made once per world and spec."""
    name = f"{spec}{np.random.default_rng().integers(1 << 30)}"
    # Every rank needs the same name: that of rank 0.
    if world.rank == 0:
        world.store.set("name", name)
    told = torch.tensor([0])
    torch.distributed.all_reduce(told, group=world.group)
    name = world.store.get("name").decode()
    torch.distributed.all_reduce(told, group=world.group)
    return ParallelDecoder.on(world, model, spec, placement, name)


def apart(found: Tensor, wanted: Tensor, floor: float = 1e-30) -> float:
    """The greatest difference over the greatest wanted value, or over ``floor``."""
    found, wanted = found.detach(), wanted.detach()
    scale = max(float(wanted.abs().max()), floor)
    return float((found - wanted).abs().max()) / scale


def trained_once(
    world: World,
    attention: AttentionDims,
    spec: ParallelSpec,
    *,
    traffic: str = "copies",
    sets: int = 1,
    shape: tuple[int, int] = (2, 5),
    precision: str = "fp32",
    floor: float = 0.0,
    **changes: Any,
) -> dict[str, float]:
    """Return how far outputs, loss and gradients are from the unsharded model's.

    Slices of the whole gradient are those of a model whose weights are gradients.
    Gradients that are 0 but for rounding are held against ``floor`` of the greatest.
    """
    model = decoder_of(attention, **{"layers": max(3, spec.pp), **changes})
    placement = placement_of(model.config, spec, traffic, sets, precision)
    place = Place(spec, world.rank)
    all_texts = texts(model.config, spec.dp, 3 if spec.pp > 1 else 1, shape)
    wanted, wanted_loss = unsharded(model, all_texts)
    mine = all_texts[place.dp]
    rank = parallel(world, model, spec, placement)
    found: dict[str, float] = {}
    for batch, logits in enumerate(rank.outputs(mine)):
        real = mine[batch].mask_BS
        error = apart(logits[real], wanted[place.dp][batch][real])
        found["outputs"] = max(found.get("outputs", 0.0), error)
    tokens = rank.tokens_of_all(count(mine))
    assert tokens == sum(count(own) for own in all_texts)
    got = rank.train(mine, lambda logits, m: loss(logits, mine[m], tokens))
    if rank.stage.last:
        found["loss"] = apart(got, wanted_loss)
    least = floor * max(float(p.grad.abs().max()) for p in model.parameters())
    exact = placement_of(model.config, spec, traffic, sets)
    sliced = parallel(world, replace_weights(model), spec, exact)
    by_name = dict(sliced.stage.named_parameters())
    for name, parameter in rank.stage.named_parameters():
        assert not parameter.grad.isnan().any(), name
        want = by_name[name].nan_to_num(0.0)
        found[name] = apart(parameter.grad, want, max(least, 1e-30))
    return found


def trained(
    world: World, attention: AttentionDims, spec: ParallelSpec, steps: int
) -> dict[str, Any]:
    """Train; return this rank's weights, its losses, and the unsharded ones."""
    model = decoder_of(attention)
    placement = placement_of(model.config, spec)
    place = Place(spec, world.rank)
    rank = parallel(world, model, spec, placement)
    all_texts = texts(model.config, spec.dp, 2)
    mine = all_texts[place.dp]
    tokens = rank.tokens_of_all(count(mine))
    own, alone = Momentum(rank.parameters()), Momentum(list(model.parameters()))
    losses, wanted = [], []
    for _ in range(steps):
        losses.append(rank.train(mine, lambda logits, m: loss(logits, mine[m], tokens)))
        own.step()
        wanted.append(unsharded(model, all_texts)[1])
        alone.step()
    target = parallel(world, model, spec, placement)
    return {
        "weights": dict(rank.stage.state_dict()),
        "wanted": dict(target.stage.state_dict()),
        "expert": {
            number: layer.routed.placed.bank.expert_P
            for number, layer in rank.stage.moe.items()
        },
        "losses": torch.stack(losses),
        "wanted losses": torch.stack(wanted),
    }


@torch.no_grad()
def decoded(world: World, attention: AttentionDims) -> tuple[float, int, int]:
    """Read a text token by token with a cache, attention divided.

    Returns how far the last logits are from those of the unsharded decoder, which
    reads all of it at once, and the bytes of both caches, divided and whole.
    """
    model, spec = decoder_of(attention), ParallelSpec(tp=world.size)
    part = parallel(world, model, spec, placement_of(model.config, spec))
    text = torch.arange(2 * 6).view(2, 6)
    own, whole = KVCache(), KVCache()
    places = torch.arange(6).expand(2, 6)
    wanted = model(text, positions_BS=places, context=whole)
    for start, end in (0, 4), (4, 5), (5, 6):
        new = slice(start, end)
        found = part.stage(text[:, new], positions_BS=places[:, new], context=own)
    return apart(found[:, -1], wanted[:, -1]), own.nbytes, whole.nbytes


def all_reduced_bytes(
    world: World, attention: AttentionDims, spec: ParallelSpec, dense_layers: int
) -> int:
    """Bytes that all-reduces of a forward pass move over rings, counted as called."""
    model = decoder_of(attention, dense_layers=dense_layers, shared_ffn=0)
    placement = placement_of(model.config, spec) if model.config.moe_layers else None
    rank = parallel(world, model, spec, placement)
    seen: list[int] = []
    real = torch.distributed.all_reduce

    def counted(x: Tensor, *options: Any, group: Any, **named: Any) -> Any:
        if x.is_floating_point():
            seen.append(2 * (group.size() - 1) * x.numel() * x.element_size())
        return real(x, *options, group=group, **named)

    torch.distributed.all_reduce = counted
    try:
        rank.outputs([MicroBatch(torch.zeros(2, 5, dtype=torch.int64))])
    finally:
        torch.distributed.all_reduce = real
    return sum(seen)


def unlike(world: World, attention: AttentionDims) -> None:
    """Let one replica bring more micro-batches than the other."""
    model = decoder_of(attention)
    spec = ParallelSpec(dp=2)
    rank = parallel(world, model, spec, placement_of(model.config, spec))
    rank.outputs(texts(model.config, 1, 1 + world.rank)[0])


class Momentum:
    """Gradient descent with momentum; importing torch.optim takes seconds."""

    def __init__(self, parameters: list[Any]) -> None:
        self._parameters = parameters
        self._moving = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self) -> None:
        for parameter, moving in zip(self._parameters, self._moving, strict=True):
            if parameter.grad is not None:
                moving.mul_(0.9).add_(parameter.grad)
            parameter.sub_(0.5 * moving)


def replace_weights(model: Decoder) -> Decoder:
    """A decoder whose weights are another's gradients."""
    gradients = Decoder(model.config).to(model.embed.dtype)
    with torch.no_grad():
        for own, of in zip(gradients.parameters(), model.parameters(), strict=True):
            own.copy_(of.grad)
    return gradients
