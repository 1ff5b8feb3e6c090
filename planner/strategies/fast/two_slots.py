"""Two slots per GPU: which copies to make so that the pairs fit under a target.

Cut every copy into whole units, 2·HALF of them being the target t, rounded up. All
copies can be paired within t exactly if for every s < HALF the copies of at most s
units are no fewer than those of 2·HALF − s or more: a large copy needs a small one
beside it. ``depth`` is the difference of the two, by s; a copy of u units adds 1 from
s = u on if u <= HALF, and takes 1 from s = 2·HALF − u on if not. So an expert's copies
change ``depth`` from one place on, and what a move changes is found by one pass over
less than HALF + 1 small integers. Moves that do not deepen the lack, the sum of what
is below 0, are taken; at 0 the pairs fit, and the target is lowered.
"""

from typing import Any, NamedTuple

import numpy as np

from planner.arrays import IntArray
from planner.strategies.fast.copies import descending, draw, measure, overwrite
from planner.strategies.fast.pairing import pair_up
from planner.strategies.search.compiling import inner

HALF = 256
"""Half the units of a target."""
BOLD, CAUTION, MEEK = 0.2, 0.7, 0.03
"""The first target's share of the way from the best to the floor, by how much it
shrinks when a round of moves does not reach it, and when it is bold again."""
ROUND = 1.25
"""Moves of a round for each expert."""
OVERHEAD = 20
"""What beginning a round costs, in moves."""


class Copies(NamedTuple):
    """The copies of a layer as they are, and ``depth`` under the present target.

    ``place_3E`` is where one copy less, as many, or one copy more of an expert
    change ``depth``, ``change_3E`` by how much; place 0 is s = −1: too large for any
    partner. ``spare_E`` lists the experts of two copies or more, ``at_E`` is each
    one's place there, and ``spares_1`` their number.
    """

    load_E: Any
    copies_E: IntArray
    depth_S: Any
    place_3E: Any
    change_3E: Any
    spare_E: IntArray
    at_E: IntArray
    spares_1: IntArray


@inner  # type: ignore[untyped-decorator]
def look_up(state: Copies, expert: int, scale: float) -> None:
    """Work out where the copies of ``expert`` change ``depth``, and by how much."""
    for row in range(3):
        copies = state.copies_E[expert] + row - 1
        if copies < 1:
            continue
        # A copy of exactly so many units must not be rounded up to one more.
        units = np.ceil(state.load_E[expert] / copies * scale - 1e-9)
        if units <= HALF:
            state.place_3E[row, expert] = 1 + int(units)
            state.change_3E[row, expert] = copies
        else:
            state.place_3E[row, expert] = max(0, 1 + 2 * HALF - int(units))
            state.change_3E[row, expert] = -copies


@inner  # type: ignore[untyped-decorator]
def begin(state: Copies, target: float) -> int:
    """Fill the state under a target; return the lack."""
    state.depth_S[:] = 0
    state.spares_1[0] = 0
    for expert in range(state.load_E.size):
        look_up(state, expert, 2 * HALF / target)
        place = state.place_3E[1, expert]
        if place < state.depth_S.size:
            state.depth_S[place] += state.change_3E[1, expert]
        if state.copies_E[expert] > 1:
            add_spare(state, expert)
    depth, lack = 0, 0
    for s in range(state.depth_S.size):
        depth += state.depth_S[s]
        state.depth_S[s] = depth
        lack -= min(depth, 0)
    return lack


@inner  # type: ignore[untyped-decorator]
def add_spare(state: Copies, expert: int) -> None:
    """Enter an expert that has two copies now."""
    state.at_E[expert] = state.spares_1[0]
    state.spare_E[state.spares_1[0]] = expert
    state.spares_1[0] += 1


@inner  # type: ignore[untyped-decorator]
def drop_spare(state: Copies, expert: int) -> None:
    """Strike out an expert that has a single copy now."""
    state.spares_1[0] -= 1
    last, at = state.spare_E[state.spares_1[0]], state.at_E[expert]
    state.spare_E[at], state.at_E[last] = last, at


@inner  # type: ignore[untyped-decorator]
def lack_change(depth_S: Any, start: int, end: int, by: int) -> Any:
    """Return what the lack gains if ``depth`` changes by ``by`` from start to end."""
    # Narrow integers throughout, or LLVM widens them and vectorizes half as much.
    zero, step, gained = np.int32(0), np.int32(by), np.int32(0)
    for s in range(start, end):
        depth = depth_S[s]
        gained += np.int32(min(depth, zero) - min(np.int32(depth + step), zero))
    return gained


@inner  # type: ignore[untyped-decorator]
def shift(depth_S: Any, start: int, end: int, by: int) -> None:
    """Change ``depth`` by ``by`` from start to end."""
    # A slice with += would do, but takes numba two seconds to compile.
    for s in range(start, end):
        depth_S[s] += by


@inner  # type: ignore[untyped-decorator]
def try_move(state: Copies, giver: int, taker: int, scale: float, forced: bool) -> Any:
    """Move a copy if that does not deepen the lack, or if it is forced.

    Returns what the lack gains.
    """
    place, change, depth_S = state.place_3E, state.change_3E, state.depth_S
    a, of_a = place[1, giver], -change[1, giver]
    b, of_b = place[0, giver], change[0, giver]
    c, of_c = place[2, taker], change[2, taker]
    d, of_d = place[1, taker], -change[1, taker]
    if b < a:
        a, of_a, b, of_b = b, of_b, a, of_a
    if d < c:
        c, of_c, d, of_d = d, of_d, c, of_c
    if c < a:
        a, of_a, c, of_c = c, of_c, a, of_a
    if d < b:
        b, of_b, d, of_d = d, of_d, b, of_b
    if b < c:
        b, of_b, c, of_c = c, of_c, b, of_b
    end = depth_S.size
    first, second = of_a, of_a + of_c
    third, fourth = second + of_b, second + of_b + of_d
    gained = lack_change(depth_S, a, c, first) + lack_change(depth_S, c, b, second)
    gained += lack_change(depth_S, b, d, third)
    if fourth != 0:
        gained += lack_change(depth_S, d, end, fourth)
    if gained > 0 and not forced:
        return 0
    shift(depth_S, a, c, first)
    shift(depth_S, c, b, second)
    shift(depth_S, b, d, third)
    shift(depth_S, d, end, fourth)
    move_copy(state, giver, taker, scale)
    return gained


@inner  # type: ignore[untyped-decorator]
def move_copy(state: Copies, giver: int, taker: int, scale: float) -> None:
    """Move a copy from ``giver`` to ``taker``; ``depth`` has been changed."""
    state.copies_E[giver] -= 1
    state.copies_E[taker] += 1
    look_up(state, giver, scale)
    look_up(state, taker, scale)
    if state.copies_E[giver] == 1:
        drop_spare(state, giver)
    if state.copies_E[taker] == 2:
        add_spare(state, taker)


@inner  # type: ignore[untyped-decorator]
def reach(state: Copies, target: float, limits: Any, forced: int, random_1: Any) -> Any:
    """Try moves towards a target; return the lack and the moves tried.

    ``limits`` are the most moves and the most copies of an expert; the first move
    takes a copy from the expert ``forced`` whatever comes of it, unless that is −1.
    """
    moves, most = limits
    lack, scale = begin(state, target), 2 * HALF / target
    for move in range(moves):
        if lack == 0 and forced < 0:
            return lack, move
        giver = state.spare_E[draw(state.spares_1[0], random_1)]
        taker = draw(state.load_E.size, random_1)
        if forced >= 0:
            giver = forced
        legal = taker != giver and state.copies_E[taker] < most
        if legal and (forced >= 0 or state.place_3E[0, giver] > 0):
            lack += try_move(state, giver, taker, scale, forced >= 0)
            forced = -1
    return lack, moves


@inner  # type: ignore[untyped-decorator]
def empty_state(load_E: Any, copies_E: Any) -> Copies:
    """Return the state of these copies, to be filled by :func:`begin`."""
    experts = load_E.size
    return Copies(
        load_E,
        copies_E,
        np.zeros(HALF + 1, dtype=np.int32),
        np.zeros((3, experts), dtype=np.int32),
        np.zeros((3, experts), dtype=np.int32),
        np.zeros(experts, dtype=np.int64),
        np.zeros(experts, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
    )


@inner  # type: ignore[untyped-decorator]
def place_pairs(
    load_E: Any, copies_E: Any, best_G2: Any, moves: int, random_1: Any
) -> None:
    """Better the pairs ``best_G2`` by moving copies, from ``copies_E`` on.

    ``copies_E`` are those that make the greatest load per copy least, so that load
    is a floor as the mean is. Ends after ``moves`` moves or at the floor.
    """
    gpus = best_G2.shape[0]
    best = measure(best_G2, load_E, np.empty(gpus))
    floor = max(load_E.sum() / gpus, (load_E / copies_E).max())
    order_E = descending(load_E / copies_E)
    trial_G2 = np.empty_like(best_G2)
    state = empty_state(load_E, copies_E)
    share, lack = BOLD, 1
    while True:
        found, forced = pair_up(copies_E, load_E / copies_E, order_E, trial_G2), -1
        if found < best:
            best = found
            overwrite(best_G2, trial_G2)
        elif lack > 0:
            share = share * CAUTION if share > MEEK else BOLD
        elif copies_E[trial_G2[gpus - 1, 0]] > 1:
            # The copies fit, yet two of one expert meet in the middle.
            forced = trial_G2[gpus - 1, 0]
        if moves <= 0 or best <= floor * (1 + 1e-9) or load_E.size == 2 * gpus:
            return
        limits = (min(moves, int(ROUND * load_E.size)), gpus)
        target = best - (best - floor) * share
        lack, tried = reach(state, target, limits, forced, random_1)
        moves -= tried + OVERHEAD
