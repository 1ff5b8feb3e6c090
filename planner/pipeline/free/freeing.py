"""A plan whose layers have the slots that help most, within one limit of time.

Short plans with equal numbers of slots say what numbers promise; which number each
layer gets is the best choice that memory, or the number asked for, allows (a knapsack
over the layers). The time that is left goes on with the layers as chosen, or with equal
slots where others promise too little. Equal slots are among the choices.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from planner.errors import InfeasibleError, LimitError, UsageError
from planner.options import AUTO, SolveOptions
from planner.pipeline.free.room import Room
from planner.pipeline.free.rungs import Rung, joined
from planner.pipeline.free.scouting import PROMISE, Scouts, wide
from planner.pipeline.growing import Build, Growth
from planner.pipeline.problem import Problem
from planner.strategies.base import Limits, Progress, SolveResult, Strategy
from planner.strategies.some_layers import some_layers


def opened(options: SolveOptions, build: Build) -> Problem:
    """Return the problem with the fewest slots, and the options as asked for.

    Raises
    ------
    InfeasibleError
        If memory does not hold the fewest slots, or for another cause.
    """
    asked: Problem | None = None
    # Memory may hold fewer slots than were asked for.
    with suppress(InfeasibleError):
        asked = build(options)
    layout = options.layout
    if asked is not None:
        layout = str(asked.option_values["layout"])
    fewest = build(replace(options, redundant=AUTO, layout=layout))
    slots = f"{fewest.instance.slots_per_gpu} slots per GPU and layer"
    says = fewest.headline.replace(slots, f"{slots} or more, shared by all layers")
    return replace(fewest, options=options, headline=says)


def freed(
    problem: Problem,
    build: Build,
    strategy: Strategy,
    limits: Limits,
    progress: Progress | None = None,
) -> tuple[Problem, SolveResult]:
    """Return the plan whose layers have the slots that help most, and its problem.

    Never worse than a plan of as many slots in every layer that was seen meanwhile.

    Parameters
    ----------
    problem
        That of the fewest slots, with the options asked for.
    build
        Makes the same problem with other options.

    Raises
    ------
    LimitError
        If no plan that keeps the caps was found with any number of slots.
    """
    growth, room = Growth(strategy, limits, progress), Room(problem)
    scouts = Scouts(growth, problem, room)
    scouts.send()
    chosen = _worth_more_time(scouts, room)
    total = None if room.asked is not None else sum(rung.slots for rung in chosen)
    if scouts.limited():
        _go_on(growth, limits, problem, chosen, scouts)
    chosen = scouts.rungs.best(room, total)
    steps = scouts.steps
    limit = next((step.result.limit for step in steps if step.result.limit), None)
    result = SolveResult(
        plan=joined(problem.instance, chosen),
        reason="limit" if scouts.limited() else "complete",
        limit=limit,
        bound=scouts.bound(),
        history=tuple(event for step in steps for event in step.result.history),
        layer_strategies=tuple(rung.origin for rung in chosen),
        notes=(*steps[-1].result.notes, *_notes(problem, room, scouts, chosen)),
    )
    return _final(problem, build, room, chosen), result


def _worth_more_time(scouts: Scouts, room: Room) -> list[Rung]:
    """Return the layers to go on with: equal slots where others promise too little."""
    equal = scouts.rungs.equal(room.mean)
    if room.asked is None or equal is None or scouts.rungs.promise(room) > PROMISE:
        return scouts.rungs.best(room)
    return equal


def _go_on(
    growth: Growth,
    limits: Limits,
    problem: Problem,
    chosen: Sequence[Rung],
    scouts: Scouts,
) -> None:
    """Plan on from the layers as chosen, those of one number of slots together."""
    left, total = growth.left, len(chosen)
    # By the same seed a search would go much the same way again.
    other = replace(limits, seconds=left, seed=limits.seed + 1)
    silent = Growth(growth.strategy, other, None)
    for slots in sorted({rung.slots for rung in chosen}):
        layers = [at for at, rung in enumerate(chosen) if rung.slots == slots]
        seconds = min(silent.left, left * len(layers) / total)
        if seconds <= 0:
            break
        part = some_layers(wide(problem.instance, slots), layers)
        start = joined(part, [chosen[layer] for layer in layers])
        with suppress(InfeasibleError, LimitError, UsageError):
            step = silent.step(replace(problem, instance=part), seconds, (start,))
            scouts.rungs.offer(step, layers)


def _final(
    problem: Problem, build: Build, room: Room, chosen: Sequence[Rung]
) -> Problem:
    """Return the problem of as many slots in the mean, with the memory of the plan."""
    slots, most = sum(rung.slots for rung in chosen), max(r.slots for r in chosen)
    mean = room.mean if room.asked is not None else slots // len(chosen)
    instance = problem.instance
    options = replace(
        problem.options,
        redundant=str(instance.layout.ep * mean - instance.model.experts),
        layout=str(problem.option_values["layout"]),
    )
    final = build(options)
    needs_G = room.needs(most, slots)
    return replace(final, instance=replace(final.instance, memory_bytes_G=needs_G))


def _notes(
    problem: Problem, room: Room, scouts: Scouts, chosen: Sequence[Rung]
) -> list[str]:
    """Say which layers have how many slots, and what equal numbers gave."""
    numbers = problem.instance.model.moe_layers
    by_slots: dict[int, list[str]] = {}
    for number, rung in zip(numbers, chosen, strict=True):
        by_slots.setdefault(rung.slots, []).append(str(number))
    shares = "; ".join(
        f"{slots} in layers {', '.join(layers)}"
        for slots, layers in sorted(by_slots.items())
    )
    given = "; ".join(step.says for step in scouts.steps)
    total, most = sum(rung.slots for rung in chosen), max(r.slots for r in chosen)
    notes = [
        f"slots per GPU: {total} in all {len(chosen)} layers, of {room.slots(most)}: "
        f"{shares} (equal in all layers, at first: {given})"
    ]
    if room.asked is not None and len(by_slots) == 1:
        notes.append(f"no other shares of the slots were better: {scouts.why_equal()}")
    held, tight = room.in_memory(most), room.tightest(most)
    wanted = None if room.asked is None else len(chosen) * room.asked
    if wanted is not None and held < wanted:
        notes.append(
            f"memory holds {held} slots per GPU in all layers, not the {wanted} that "
            f"--redundant {problem.options.redundant} asks for"
        )
    if tight is not None and (wanted is None or held < wanted):
        notes.append(tight)
    return notes
