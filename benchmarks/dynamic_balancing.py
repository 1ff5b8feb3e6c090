"""Dynamic balancing of tiny-moe on skewed text: expert load against outputs.

    python -m benchmarks.dynamic_balancing [--tags docs] [--steps N] [--only unseen]

One line per rule and target on the sequences of some tags of the bundled trace:
greatest load of an expert over its layer's mean (every layer, worst layer), KL of
the next token's odds (original || balanced) in nats per token, perplexity, and the
first step whose load is below 1.2 in every layer. Then rules that were tried and not
taken, and biases fitted on every other sequence, shown on the sequences left out.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from planner import bundled
from planner.arrays import FloatArray, IdArray, IntArray
from planner.executor.gating.balancing import Balance, relative
from planner.executor.model.weights import load_model
from planner.executor.text.reading import Reader, balanced, biased, loads
from planner.executor.text.run import sequence_batches
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace

STEP = 0.05
SECTIONS = ("defaults", "rules", "newcomers", "tried", "unseen")
WANTED = 1.2
BAND = (0.5, 1.18)
TARGETS = (2.0, 1.75, 1.5, 1.3, 1.2, 1.15, 1.1, 1.05)


def main() -> None:
    """Print the curve of every set of tags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tags", nargs="+", action="append")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.set_grad_enabled(False)
    for tags in given.tags or [["docs"], ["encodings"], ["async", "docs"]]:
        started = time.process_time()
        _curve(tags, given.steps, given.only)
        print(f"processor seconds: {time.process_time() - started:.0f}\n", flush=True)


def _curve(tags: list[str], steps: int, only: Sequence[str]) -> None:
    weights = bundled.tiny_moe_weights()
    model = load_model(weights, weights.with_suffix(".json"))
    trace = load_trace(bundled.tiny_moe_trace())
    assert isinstance(trace, RoutingTrace)
    rows = np.flatnonzero(np.isin(trace.tag_T, [trace.tags.index(tag) for tag in tags]))

    def reader(rows: IntArray, newcomers: float = 1.0) -> Reader:
        assert trace.token_id_T is not None
        batches = list(sequence_batches(trace.sequence_T[rows]))
        return Reader(model, batches, trace.token_id_T[rows], newcomers)

    whole = reader(rows)
    sequences = len(np.unique(trace.sequence_T[rows]))
    print(
        f"{' + '.join(tags)}: {len(rows):,} tokens, {sequences} sequences, "
        f"{len(whole.batches)} batches a round"
    )
    for rule in (Balance(), Balance(target=1.1, newcomers=0.5)) * ("defaults" in only):
        shown = reader(rows, newcomers=rule.newcomers)
        print(f"  the command's own window and steps; newcomers {rule.newcomers:g}")
        _line(rule, shown, shown, window=rule.window, steps=rule.steps)
    rules = [Balance(rule="sign", step=0.01), Balance(rule="proportional", step=0.02)]
    rules += [Balance(step=STEP, target=target) for target in TARGETS]
    for rule in rules if "rules" in only else ():
        _line(rule, whole, whole, window=len(whole.batches), steps=steps)
    if "newcomers" in only:
        lowered = reader(rows, newcomers=0.5)
        print("  the gates of newcomers halved")
        for target in (1.5, 1.3, 1.15, 1.05):
            window = len(lowered.batches)
            rule = Balance(step=STEP, target=target)
            _line(rule, lowered, lowered, window=window, steps=steps)
    for name, moved in TRIED.items() if "tried" in only else ():
        bias_LE, worst_SL = _followed(whole, moved, steps)
        _shown(name, "-", bias_LE, worst_SL, whole)
    if "unseen" not in only:
        return
    odd_T = np.unique(trace.sequence_T[rows], return_inverse=True)[1] % 2 == 1
    fitted, unseen = reader(rows[~odd_T]), reader(rows[odd_T])
    for name, shown in (("half of the sequences", fitted), ("other half", unseen)):
        print(f"  biases of {fitted.size:,} tokens, shown on {name}")
        for target in (1.3, 1.15, 1.05):
            window = len(fitted.batches)
            rule = Balance(step=STEP, target=target)
            _line(rule, fitted, shown, window=window, steps=steps)


def _line(
    rule: Balance, fitted: Reader, shown: Reader, *, window: int, steps: int
) -> None:
    balance = Balance(
        rule=rule.rule, step=rule.step, target=rule.target, window=window, steps=steps
    )
    bias_LE, worst_SL = balanced(fitted, balance)
    aim = f"{rule.target:.2f}" if rule.rule == "prices" else "-"
    _shown(rule.rule, aim, bias_LE, worst_SL, shown)


def _shown(
    name: str, aim: str, bias_LE: FloatArray, worst_SL: FloatArray, shown: Reader
) -> None:
    before, rerouting = shown.compared(bias_LE)
    after, change = rerouting.wanted_LTK, rerouting.outputs
    assert change is not None
    experts = shown.model.config.experts
    below = np.flatnonzero(worst_SL.max(axis=1) < WANTED)
    print(
        f"  {name:22s} {aim:>5s}  {_layers(before, experts)} -> "
        f"{_layers(after, experts)}  "
        f"KL {change.kl:.4f}  perplexity {change.perplexity_before:.3f} -> "
        f"{change.perplexity_after:.3f}  < {WANTED} at step "
        f"{below[0] if below.size else '-'}",
        flush=True,
    )


def _followed(
    reader: Reader, moved: "Moved", steps: int
) -> tuple[FloatArray, FloatArray]:
    """Let the biases follow another rule, one round of batches per step."""
    experts = reader.model.config.experts
    bias_LE: FloatArray = np.zeros((len(reader.layers), experts))
    worst_SL = np.empty((steps, len(bias_LE)))
    for step in range(steps):
        with biased(reader.layers, bias_LE):
            read = [reader.read(batch) for batch in range(len(reader.batches))]
        load_LE = sum(loads(reading.wanted_LNK, experts) for reading in read)
        near_LE = relative(np.asarray(load_LE))
        worst_SL[step] = near_LE.max(axis=1)
        bias_LE = moved(bias_LE, near_LE, step)
    return bias_LE, worst_SL


Moved = Callable[[FloatArray, FloatArray, int], FloatArray]


def _banded(near_LE: FloatArray) -> FloatArray:
    """Return how far each expert is below or above the band."""
    low, high = BAND
    return np.minimum(near_LE - low, 0) + np.maximum(near_LE - high, 0)


TRIED: dict[str, Moved] = {
    "sign, decaying": lambda b, near, step: b - 0.02 * 0.97**step * np.sign(near - 1),
    "sign outside a band": lambda b, near, _: b - 0.01 * np.sign(_banded(near)),
    "distance to a band": lambda b, near, _: b - 0.05 * _banded(near),
    "prices by logarithm": lambda b, near, _: np.minimum(
        0, b - 0.05 * np.log(np.maximum(near, 0.05) / 1.15)
    ),
    "prices, until reached": lambda b, near, _: np.where(
        near.max(axis=1, keepdims=True) < WANTED,
        b,
        np.minimum(0, b - 0.05 * (near - 1.15)),
    ),
}


def _layers(ids_LTK: IdArray, experts: int) -> str:
    """Return the range over layers of the busiest expert's load over the mean."""
    worst_L: FloatArray = relative(loads(ids_LTK, experts)).max(axis=1)
    return f"{worst_L.min():.2f}..{worst_L.max():.2f}"


if __name__ == "__main__":
    main()
