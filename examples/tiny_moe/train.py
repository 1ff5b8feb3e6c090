"""Train the bundled model and record its routing, from nothing, in one command.

::

    python -m examples.tiny_moe.train

Steps and seeds are fixed; the clock decides nothing. Another interpreter
version has another standard library and so gives another model.
"""

import argparse
import math
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a file
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from examples.tiny_moe.corpus import TAGS, digest, documents  # noqa: E402
from examples.tiny_moe.record import DATA, record, streams  # noqa: E402
from examples.tiny_moe.tokenizer import Tokenizer  # noqa: E402
from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.model.moe import at_once  # noqa: E402
from planner.executor.model.tiny import TinyMoESpec  # noqa: E402
from planner.executor.model.weights import save  # noqa: E402

BATCH, LENGTH = 8, 256
PEAK_RATE, WARMUP = 3e-3, 60
BIAS_RATE = 2e-2
LEAST, MOST = 0.4, 2.5
"""Loads over the mean load that balancing leaves alone."""


def batches(text: dict[str, np.ndarray], steps: int) -> list[torch.Tensor]:
    """Draw all training windows: every tag equally often, any offset."""
    rng = np.random.default_rng(20240601)
    drawn = []
    for _ in range(steps):
        rows = []
        for tag in rng.choice(TAGS, BATCH):
            start = rng.integers(len(text[tag]) - LENGTH)
            rows.append(text[tag][start : start + LENGTH + 1])
        drawn.append(torch.from_numpy(np.stack(rows)))
    return drawn


def optimizer(model: Decoder) -> torch.optim.Optimizer:
    """Return AdamW; norms, embeddings and routers do not decay."""
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name == "embed" or name.endswith("router")
        (free if plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": 0.05},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95))


def balance(model: Decoder, counts: dict[int, torch.Tensor], rate: float) -> None:
    """Move the selection biases of experts that are far from an equal load.

    The band leaves the skew that models in use show; their balancing is no
    stricter, and a placement has to live with it.
    """
    for layer, moe in model.moe.items():
        load = counts[layer] / counts[layer].float().mean()
        moe.bias += rate * ((load < LEAST).float() - (load > MOST).float())
        moe.bias -= moe.bias.mean()


def count_loads(model: Decoder) -> dict[int, torch.Tensor]:
    """Keep the tokens per expert of each layer's latest call, as a side effect."""
    counts: dict[int, torch.Tensor] = {}
    for layer, moe in model.moe.items():

        def counted(x, ids, gates, layer=layer, moe=moe):  # type: ignore[no-untyped-def]
            counts[layer] = torch.bincount(ids.reshape(-1), minlength=len(moe.bias))
            return moe.combine_local(x, ids, gates)

        moe.routed = at_once(counted)
    return counts


def train(model: Decoder, text: dict[str, np.ndarray], steps: int) -> float:
    """Train in place and return the seconds it took."""
    start = time.perf_counter()
    adam, counts = optimizer(model), count_loads(model)
    for step, batch in enumerate(batches(text, steps)):
        done = max(0.0, (step - WARMUP) / (steps - WARMUP))
        cosine = 0.03 + 0.97 * (1 + math.cos(math.pi * done)) / 2
        for group in adam.param_groups:
            group["lr"] = PEAK_RATE * min((step + 1) / WARMUP, cosine)
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        with torch.no_grad():
            balance(model, counts, BIAS_RATE * cosine)
        if step % 50 == 0 or step == steps - 1:
            worst = max(float(c.max() / c.float().mean()) for c in counts.values())
            took = time.perf_counter() - start
            print(
                f"step {step:5d}  loss {loss.item():.3f}  "
                f"worst load max/mean {worst:.2f}  {took:.0f} s",
                flush=True,
            )
    return time.perf_counter() - start


def main() -> None:
    """Train, save, and record the routing of what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the matrices are too small to share
    torch.set_flush_denormal(True)
    torch.manual_seed(20240601)
    options.out.mkdir(parents=True, exist_ok=True)
    weights, card = options.out / "tiny-moe.npz", options.out / "tiny-moe.json"

    spec, corpus = TinyMoESpec(), documents()
    kept = (document.text for document in corpus if not document.held_out)
    tokenizer = Tokenizer.fit(kept, spec.vocab)
    model = Decoder(spec.config)
    seconds = train(model, streams(corpus, tokenizer, held_out=False), options.steps)
    info = {
        "spec": spec.to_dict(),
        "model": "tiny-moe",
        "corpus": "Python standard library, "
        f"{platform.python_implementation()} {platform.python_version()}",
        "corpus_sha256": digest(corpus),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "steps": options.steps,
        "tokens_per_step": BATCH * LENGTH,
        "training_seconds": round(seconds),
        "training_cpu_seconds": round(time.process_time()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": tokenizer.pieces,
    }
    save(model, weights, card, info)
    record(options.out)


if __name__ == "__main__":
    main()
