"""``--policy free`` beside equal slots: never worse, and how the time is shared out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import clock
from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.pipeline.free import freed, opened
from planner.pipeline.problem import Problem, Sources, build_problem
from planner.plan import PlacementPlan
from planner.strategies.base import Limits, Progress, SolveResult
from tests.unit.pipeline.test_freeing import FLAT, HOT, asked, planned
from tests.unit.pipeline.test_freeing import given as layers_of

LIMIT = 40.0


@dataclass
class Blind:
    """A strategy that places by chance, uses all its time and keeps what it made."""

    seed: int
    seconds: dict[int, float] = field(default_factory=dict)
    values: dict[int, list[Fraction]] = field(default_factory=dict)

    def __call__(
        self,
        instance: PlacementInstance,
        limits: Limits,
        starts: Sequence[PlacementPlan] = (),
        progress: Progress | None = None,
    ) -> SolveResult:
        """Return a legal plan that owes nothing to the starts."""
        rng = np.random.default_rng([self.seed, len(self.seconds)])
        slots, layers = instance.slots_per_gpu, instance.layer_count
        plan = PlacementPlan(
            layer_numbers=instance.model.moe_layers,
            slots_LGJ=np.asarray(
                [_dealt(rng, instance.layout.ep, slots) for _ in range(layers)],
                dtype=np.int16,
            ),
        )
        clock.spend(limits.seconds)
        self.seconds[slots] = self.seconds.get(slots, 0.0) + limits.seconds
        if layers == 2:
            value = evaluate_planning(instance, plan).value
            self.values.setdefault(slots, []).append(value)
        return SolveResult(plan=plan, reason="limit", limit="work")


def _dealt(rng: np.random.Generator, gpus: int, slots: int) -> list[list[int]]:
    """Deal eight experts round, begun anywhere: each on a GPU, none there twice."""
    order = rng.permutation(8)
    return [
        [int(order[(gpu * 8 // gpus + at) % 8]) for at in range(slots)]
        for gpu in range(gpus)
    ]


def run(
    strategy: Blind, loads: Sequence[Sequence[int]], options: SolveOptions
) -> tuple[Problem, SolveResult]:
    """Plan within counted work."""
    asked_for = layers_of(loads)
    sources = Sources(
        topology=asked_for["topology"],
        model=asked_for["model"],
        traces=(asked_for["trace"],),
        base=Path(),
    )

    def build(other: SolveOptions) -> Problem:
        return build_problem(sources, other)

    with clock.counting_work():
        return freed(
            opened(options, build), build, strategy, Limits(seconds=LIMIT, threads=1)
        )


@given(seed=st.integers(0, 10**6), redundant=st.sampled_from(["0", "4", "8"]))
@pytest.mark.parametrize("layers", ["sequential", "worst_layer"])
def test_never_worse_than_equal_slots_seen_meanwhile(
    layers: str, seed: int, redundant: str
) -> None:
    """Law: whatever equal slots give in the same run, within the limit, free keeps."""
    strategy = Blind(seed)
    options = asked(redundant=redundant, layers=layers)
    problem, result = run(strategy, [HOT, FLAT], options)
    value = evaluate_planning(problem.instance, result.plan).value
    mean = 2 + int(redundant) // 4
    assert value <= min(strategy.values[mean])
    assert sum(strategy.seconds.values()) <= LIMIT * (1 + 1e-9)
    assert strategy.seconds[mean] >= LIMIT / 2


def test_all_the_time_goes_to_equal_slots_where_no_layer_can_have_more() -> None:
    """Law: with the fewest slots asked for, one solve with the whole limit; told so."""
    strategy = Blind(1)
    _, result = run(strategy, [HOT, FLAT], asked(redundant="0"))
    assert strategy.seconds == {2: LIMIT}
    assert any("no layer can have more" in note for note in result.notes)


def test_then_the_plan_is_that_of_equal_slots() -> None:
    """Law: equal counted work, the same placement."""
    free = planned([HOT, FLAT], redundant="0")
    uniform = planned([HOT, FLAT], redundant="0", policy="uniform")
    assert free.layers == uniform.layers


@pytest.mark.parametrize(
    ("loads", "says"),
    [
        ([FLAT, FLAT], "within 0.5 % of a bound for any number of slots"),
        ([HOT, HOT], "they promised 0.00 %"),
    ],
)
def test_it_says_why_equal_slots_were_kept(loads: list[list[int]], says: str) -> None:
    """Law: layers that are alike keep equal slots, and a note says why.

    A hot layer gains less from a fourth slot than it loses with its third.
    """
    found = planned(loads, redundant="4")
    assert {len(layer.slots[0]) for layer in found.layers} == {3}
    (note,) = [note for note in found.provenance.notes if says in note]
    assert note.startswith("no other shares of the slots were better")


def test_it_says_where_the_limit_is_too_short_to_tell() -> None:
    """Law: of a strategy whose short plans are worse with more slots, nothing is told.

    Blind plans with a slot more are worse than with one less for some seed of a few.
    """
    notes = []
    for seed in range(20):
        _, result = run(Blind(seed), [HOT, HOT], asked(redundant="4"))
        notes += result.notes
    assert any("too short to tell" in note for note in notes)
