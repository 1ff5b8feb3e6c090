"""Train a toy decoder on two ranks: attention on both, experts shared out (torch).

Run: ``python examples/04_train_in_parallel.py [STEPS]``
"""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from planner.executor.model.decoder import Decoder
from planner.executor.model.tiny import TinyMoESpec
from planner.executor.parallel.assembly import MicroBatch, ParallelDecoder
from planner.executor.parallel.spec import ParallelSpec
from planner.executor.placement import ParallelLayout, Placement, PlacementPlan
from planner.executor.world.standing import StandingWorld, World

DIMS = {"vocab": 16, "context": 8, "hidden": 16, "layers": 2, "heads": 2, "experts": 4}
WIDTHS = {"top_k": 2, "expert_ffn": 8, "shared_ffn": 8, "dense_ffn": 32}
SLOTS = np.array([[[0, 1, 2], [0, 3, -1]]], dtype=np.int16)  # both have expert 0
PLAN = PlacementPlan(layer_numbers=(1,), slots_LGJ=SLOTS)
LAYOUT = ParallelLayout(domain_G=np.zeros(2, int), ep=2, attention_groups=((0,), (1,)))


def loss(logits: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Part of the mean over the tokens of all 16 texts."""
    return cross_entropy(logits[:, :-1].mT, texts[:, 1:], reduction="sum") / (16 * 7)


def train(world: World, steps: int) -> tuple[list[float], list[float], torch.Tensor]:
    """Train on a half of the texts; return losses, unsharded ones, and weights."""
    rules = {"traffic": "dedup_gpu", "selection": "nearest", "endpoint": "local_nic"}
    placement = Placement(plan=PLAN, layout=LAYOUT, **rules)
    torch.manual_seed(0)
    whole = Decoder(TinyMoESpec(**DIMS, **WIDTHS).config)
    part = ParallelDecoder.on(world, whole, ParallelSpec(dp=2), placement)
    texts = (torch.arange(16)[:, None] + 3 * torch.arange(8)) % 16
    mine, found, wanted = texts[world.rank :: 2], [], []
    for _ in range(steps):
        found.append(part.train([MicroBatch(mine)], lambda x, _: loss(x, mine)).item())
        whole.zero_grad()
        (alone := loss(whole(texts), texts)).backward()
        wanted.append(alone.item())
        for weights in [*part.parameters(), *whole.parameters()]:
            weights.data -= 0.5 * weights.grad
    held = (w for name, w in part.stage.named_parameters() if ".slots." not in name)
    return found, wanted, torch.cat([weights.data.flatten() for weights in held])


def main(steps: int) -> None:
    """Compare the two ranks with each other and with the unsharded decoder."""
    sys.path.insert(0, str(Path(__file__).parent))  # ranks import what they run
    program = import_module(Path(__file__).stem).train
    with StandingWorld(2) as world:
        (found, wanted, first), (_, _, second) = world.run(program, steps)
    apart = np.abs(np.divide(found, wanted) - 1).max()
    print(f"loss {found[0]:.3f} -> {found[-1]:.3f}; unsharded within {apart:.1e}")
    print(f"replicas identical to the bit: {torch.equal(first, second)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
