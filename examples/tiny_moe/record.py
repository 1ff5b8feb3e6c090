"""Record which experts the bundled model routes held-out text to.

::

    python -m examples.tiny_moe.record

Reads the weights, writes the trace beside them and the loss into their card.
Every choice of the trace is clear: the expert taken last beats the best one left
out by ``CLEAR`` or more. So a machine that rounds sums otherwise routes alike.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a file
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from examples.tiny_moe.corpus import (  # noqa: E402
    TAGS,
    Document,
    digest,
    documents,
)
from examples.tiny_moe.tokenizer import SEPARATOR, Tokenizer  # noqa: E402
from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.model.moe import MoELayer, at_once  # noqa: E402
from planner.executor.model.weights import load_model  # noqa: E402
from planner.workload.trace_writer import write_trace  # noqa: E402

DATA = Path(__file__).resolve().parent / "data"
SEQUENCES, SHORTEST, LONGEST, TRIES = 210, 24, 128, 12
CLEAR = 5e-6
"""In units of the selection score; rounding moves scores by some 1e-7."""
GROUP = 16
Sequence = tuple[str, NDArray[np.int64]]


def streams(
    corpus: list[Document], tokenizer: Tokenizer, *, held_out: bool
) -> dict[str, NDArray[np.int64]]:
    """Return the tokens of every tag's files, in order, with separators."""
    ids: dict[str, list[int]] = {tag: [] for tag in TAGS}
    for document in corpus:
        if document.held_out == held_out:
            ids[document.tag] += [*tokenizer.encode(document.text), SEPARATOR]
    return {tag: np.array(values, np.int64) for tag, values in ids.items()}


def sequences(model: Decoder, text: dict[str, NDArray[np.int64]]) -> list[Sequence]:
    """Cut disjoint sequences with clear choices from the streams, tags in turn."""
    rng = np.random.default_rng(7)
    rounds = SEQUENCES // len(TAGS)
    cut = []
    for i in range(rounds):
        for tag in TAGS:
            stride = len(text[tag]) // rounds
            length = int(rng.integers(SHORTEST, LONGEST + 1))
            for start in i * stride + rng.integers(stride - length, size=TRIES):
                row = text[tag][start : start + length]
                if smallest_margin(model, row) >= CLEAR:
                    cut.append((tag, row))
                    break
    return cut


@contextmanager
def watched(
    model: Decoder, look: Callable[[int, MoELayer, torch.Tensor, torch.Tensor], None]
) -> Iterator[None]:
    """Show layer, tokens and chosen experts of every routed layer to ``look``."""

    def seeing(number: int, layer: MoELayer) -> Any:
        def combine(x: Any, ids: Any, gates: Any) -> Any:
            look(number, layer, x, ids)
            return layer.combine_local(x, ids, gates)

        return at_once(combine)

    for number, layer in model.moe.items():
        layer.routed = seeing(number, layer)
    try:
        yield
    finally:
        for layer in model.moe.values():
            layer.compute_here()


@torch.no_grad()
def smallest_margin(model: Decoder, row: NDArray[np.int64]) -> float:
    """Return the least lead of a chosen expert over the best one left out."""
    margins = []

    def look(_: int, layer: MoELayer, x: torch.Tensor, ids: torch.Tensor) -> None:
        scores = torch.sigmoid(x @ layer.router) + layer.bias
        best = torch.topk(scores, ids.shape[1] + 1, dim=-1).values
        margins.append(float((best[:, -2] - best[:, -1]).min()))

    with watched(model, look):
        model(torch.from_numpy(row)[None])
    return min(margins)


@torch.no_grad()
def held_out_loss(model: Decoder, ids: list[NDArray[np.int64]]) -> float:
    """Return nats per predicted token over sequences run one by one."""
    total, count = 0.0, 0
    for row in ids:
        tokens = torch.from_numpy(row)[None]
        logits = model(tokens[:, :-1])[0]
        total += F.cross_entropy(logits, tokens[0, 1:], reduction="sum").item()
        count += len(row) - 1
    return total / count


@torch.no_grad()
def routed(
    model: Decoder, ids: list[NDArray[np.int64]]
) -> dict[int, NDArray[np.int64]]:
    """Return the experts ``[T, K]`` of every layer with experts."""
    found: dict[int, list[torch.Tensor]] = {number: [] for number in model.moe}
    with watched(model, lambda number, _layer, _x, ids: found[number].append(ids)):
        for row in ids:
            model(torch.from_numpy(row)[None])
    return {number: torch.cat(parts).numpy() for number, parts in found.items()}


def write(
    model: Decoder, held_out: list[Sequence], path: Path, info: dict[str, Any]
) -> dict[int, NDArray[np.int64]]:
    """Run the model on the sequences, write the trace, return the routing."""
    ids = [row for _, row in held_out]
    lengths = [len(row) for row in ids]
    experts = routed(model, ids)
    metadata = {
        "model": "tiny-moe",
        "num_experts": model.config.experts,
        "top_k": model.config.top_k,
        "moe_layers": list(model.config.moe_layers),
        "n_shared": 1,
        "id_space": "logical",
        "order": "router",
        "tokens": sum(lengths),
        "source": "recorded from the bundled tiny-moe on held-out files of the "
        f"{info['corpus']}",
        "corpus_sha256": info["corpus_sha256"],
        "weights_sha256": info["weights_sha256"],
        "spec": info["spec"],
    }
    write_trace(
        path,
        metadata=metadata,
        seq_id=np.repeat(np.arange(len(ids)), lengths),
        pos=np.concatenate([np.arange(n) for n in lengths]),
        tag=[tag for tag, row in held_out for _ in row],
        phase="prefill",
        experts=experts,
        token_id=np.concatenate(ids),
    )
    return experts


def clustered(together: NDArray[np.float64]) -> NDArray[np.int64]:
    """Group experts so that pairs used together share a group: swaps to a rest."""
    count = len(together)
    best = np.arange(count) // GROUP
    gain = -1.0
    for seed in range(8):
        group = np.random.default_rng(seed).permutation(np.arange(count) // GROUP)
        improved = True
        while improved:
            improved = False
            for a in range(count):
                pull = together @ np.eye(count // GROUP)[group]
                rise = (
                    pull[a, group]
                    - pull[a, group[a]]
                    + pull[np.arange(count), group[a]]
                    - pull[np.arange(count), group]
                    - 2 * together[a]
                )
                rise[group == group[a]] = 0
                b = int(rise.argmax())
                if rise[b] > 1e-9:
                    group[a], group[b] = group[b], group[a]
                    improved = True
        value = together[group[:, None] == group].sum()
        if value > gain:
            gain, best = value, group
    return best


def touched(chosen: NDArray[np.int64], group: NDArray[np.int64]) -> float:
    """Return the mean number of distinct groups per token."""
    return float(np.mean([len(set(row)) for row in group[chosen].tolist()]))


def report(experts: dict[int, NDArray[np.int64]], held_out: list[Sequence]) -> None:
    """Print load skew and what grouping co-activated experts could save.

    Groups are fitted on one half of the sequences and scored on the other.
    """
    half = np.repeat(
        [i // len(TAGS) % 2 for i in range(len(held_out))],
        [len(row) for _, row in held_out],
    )
    count = 1 + max(int(chosen.max()) for chosen in experts.values())
    count += -count % GROUP
    totals = np.zeros(2)
    for layer, chosen in experts.items():
        load = np.bincount(chosen.ravel(), minlength=count)
        used = np.zeros((len(chosen), count))
        np.put_along_axis(used, chosen, 1.0, axis=1)
        together = used[half == 0].T @ used[half == 0]
        np.fill_diagonal(together, 0)
        plain = touched(chosen[half == 1], np.arange(count) // GROUP)
        fitted = touched(chosen[half == 1], clustered(together))
        totals += plain, fitted
        print(
            f"layer {layer}: load max/mean {load.max() / load.mean():.2f}; groups of "
            f"{GROUP} per token {plain:.3f} in order, {fitted:.3f} clustered "
            f"({1 - fitted / plain:.1%} fewer)"
        )
    plain, fitted = totals / len(experts)
    print(
        f"all: {plain:.3f} in order, {fitted:.3f} clustered ({1 - fitted / plain:.1%})"
    )


def record(folder: Path) -> None:
    """Record the trace of the weights in ``folder`` and print what it is like."""
    weights, card = folder / "tiny-moe.npz", folder / "tiny-moe.json"
    model = load_model(weights, card)
    info = json.loads(card.read_text(encoding="utf-8"))
    corpus = documents()
    if digest(corpus) != info["corpus_sha256"]:
        print(f"this library's text is not that of the training: {info['corpus']}")
    text = streams(corpus, Tokenizer(info["vocabulary"]), held_out=True)
    held_out = sequences(model, text)
    rows = [row for _, row in held_out]
    info["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    info["held_out_tokens"] = sum(len(row) for row in rows)
    info["held_out_loss"] = round(held_out_loss(model, rows), 5)
    experts = write(model, held_out, folder / "tiny-moe.parquet", info)
    card.write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    print(f"{len(held_out)} sequences, {info['held_out_tokens']} tokens")
    print(f"held-out loss {info['held_out_loss']} nats/token")
    report(experts, held_out)


def main() -> None:
    """Record the trace of the bundled weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=DATA)
    record(parser.parse_args().out)


if __name__ == "__main__":
    main()
