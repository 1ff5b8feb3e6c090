"""Moves: copies go into slots, who is displaced goes elsewhere or is dropped.

A move is a chain of steps. Step i puts ``expert_4[i]`` into slot ``slot_4[i]`` of
``domain_4[i]``; who held the slot is put somewhere by the next step. The chain ends
when the displaced expert has another copy and is dropped (then the first expert gains
a copy and the last loses one), or when it takes the slot of a copy of the first
expert (then nobody's number of copies changes).
"""

from typing import Any

from planner.strategies.priced.state import MOST_STEPS, inlined, pour
from planner.strategies.search.anneal import draw

LONGER = 256
"""Of 1024 displaced experts that are not dropped, this many displace another."""
ANYWHERE = 256
"""Of 1024 displaced experts, this many go to any domain, the others to a near one."""


@inlined  # type: ignore[untyped-decorator]
def propose(ports: Any, state: Any, scratch: Any, choices: Any, random_1: Any) -> int:
    """Write a move into ``scratch`` and return its steps; 0 if it is not legal."""
    copy_Q, near_EN, near_E = choices
    slots_N, held_EN, count_E = ports.slots_N, state.held_EN, state.count_E
    expert_4, domain_4, slot_4 = scratch.expert_4, scratch.domain_4, scratch.slot_4
    slots_NJ, domains = state.slots_NJ, slots_N.size
    wanted = copy_Q[draw(random_1, copy_Q.size)]
    first, domain = wanted // domains, wanted % domains
    expert, steps = first, 0
    while True:
        if held_EN[expert, domain] or slots_N[domain] == 0:
            return 0
        slot = draw(random_1, slots_N[domain])
        displaced = slots_NJ[domain, slot]
        for step in range(steps):
            if domain_4[step] == domain or expert_4[step] == displaced:
                return 0
        expert_4[steps], domain_4[steps], slot_4[steps] = expert, domain, slot
        steps += 1
        if count_E[displaced] > 1 and draw(random_1, 2) == 0:
            return steps
        if steps == MOST_STEPS:
            return 0
        expert = displaced
        if draw(random_1, 1024) >= LONGER:
            return int(close(state, scratch, random_1, expert, steps))
        if draw(random_1, 1024) < ANYWHERE:
            domain = draw(random_1, domains)
        else:
            domain = near_EN[expert, draw(random_1, near_E[expert])]


@inlined  # type: ignore[untyped-decorator]
def close(state: Any, scratch: Any, random_1: Any, expert: int, steps: int) -> int:
    """Put the last displaced expert in place of a copy of the first; 0 if it cannot."""
    expert_4, domain_4, slot_4 = scratch.expert_4, scratch.domain_4, scratch.slot_4
    slots_NJ, first = state.slots_NJ, expert_4[0]
    copy = draw(random_1, state.count_E[first])
    domain = state.domain_EN[first, copy]
    if state.held_EN[expert, domain]:
        return 0
    for step in range(steps):
        if domain_4[step] == domain:
            return 0
    slot = 0
    while slots_NJ[domain, slot] != first:
        slot += 1
    expert_4[steps], domain_4[steps], slot_4[steps] = expert, domain, slot
    return steps + 1


@inlined  # type: ignore[untyped-decorator]
def experts_moved(state: Any, scratch: Any, steps: int) -> int:
    """Write the experts that a move concerns into ``touched_E``, return how many."""
    expert_4, domain_4, slot_4 = scratch.expert_4, scratch.domain_4, scratch.slot_4
    slots_NJ, touched_E, touched = state.slots_NJ, scratch.touched_E, 0
    for step in range(steps):
        for side in range(2):
            expert = expert_4[step]
            if side:
                expert = slots_NJ[domain_4[step], slot_4[step]]
            known = False
            for other in range(touched):
                known = known or touched_E[other] == expert
            if not known:
                touched_E[touched] = expert
                touched += 1
    return touched


@inlined  # type: ignore[untyped-decorator]
def remember(state: Any, scratch: Any, touched: int) -> int:
    """Save what a move can change.

    Writes all experts with several copies into ``several_E`` and returns how many.
    """
    count_E, served_EN, domain_EN = state.count_E, state.served_EN, state.domain_EN
    several_E, old_served_EN = scratch.several_E, scratch.old_served_EN
    several = 0
    for expert in range(count_E.size):
        if count_E[expert] > 1:
            several_E[several] = expert
            several += 1
            for copy in range(count_E[expert]):
                old_served_EN[expert, copy] = served_EN[expert, copy]
    touched_E, old_domain_EN = scratch.touched_E, scratch.old_domain_EN
    for at in range(touched):
        expert = touched_E[at]
        scratch.old_count_E[expert] = count_E[expert]
        scratch.old_left_E[expert] = state.left_E[expert]
        for copy in range(count_E[expert]):
            old_domain_EN[expert, copy] = domain_EN[expert, copy]
            old_served_EN[expert, copy] = served_EN[expert, copy]
    scratch.old_in_N[:] = state.in_N
    return several


@inlined  # type: ignore[untyped-decorator]
def switch(ports: Any, state: Any, scratch: Any, steps: int) -> None:
    """Move the copies; slots and egress are left to :func:`confirm`."""
    held_EN, count_E, left_E = state.held_EN, state.count_E, state.left_E
    domain_EN, served_EN, demand_EN = state.domain_EN, state.served_EN, ports.demand_EN
    expert_4, domain_4, slot_4 = scratch.expert_4, scratch.domain_4, scratch.slot_4
    slots_NJ, in_N = state.slots_NJ, state.in_N
    for step in range(steps):
        domain = domain_4[step]
        expert = slots_NJ[domain, slot_4[step]]
        held_EN[expert, domain] = False
        copy = 0
        while domain_EN[expert, copy] != domain:
            copy += 1
        in_N[domain] -= served_EN[expert, copy]
        left_E[expert] += demand_EN[expert, domain]
        count_E[expert] -= 1
        last = count_E[expert]
        domain_EN[expert, copy] = domain_EN[expert, last]
        served_EN[expert, copy] = served_EN[expert, last]
    for step in range(steps):
        expert, domain = expert_4[step], domain_4[step]
        held_EN[expert, domain] = True
        last = count_E[expert]
        domain_EN[expert, last] = domain
        served_EN[expert, last] = 0.0
        left_E[expert] -= demand_EN[expert, domain]
        count_E[expert] += 1


@inlined  # type: ignore[untyped-decorator]
def pour_touched(ports: Any, state: Any, scratch: Any, touched: int) -> None:
    """Split what is left of the moved experts: those without a choice first."""
    for several in range(2):
        for at in range(touched):
            expert = scratch.touched_E[at]
            if (state.count_E[expert] > 1) == (several == 1):
                pour(ports, state, scratch.level_N, expert)


@inlined  # type: ignore[untyped-decorator]
def confirm(state: Any, scratch: Any, steps: int) -> None:
    """Make the move final."""
    for step in range(steps):
        domain = scratch.domain_4[step]
        state.slots_NJ[domain, scratch.slot_4[step]] = scratch.expert_4[step]
        state.out_N[domain] = scratch.out_4[step]
        scratch.steep_N[domain] = scratch.steep_4[step]


@inlined  # type: ignore[untyped-decorator]
def take_back(state: Any, scratch: Any, steps: int, touched: int, several: int) -> None:
    """Undo :func:`switch` and whatever was poured since :func:`remember`."""
    held_EN, count_E, slots_NJ = state.held_EN, state.count_E, state.slots_NJ
    expert_4, domain_4, slot_4 = scratch.expert_4, scratch.domain_4, scratch.slot_4
    for step in range(steps):
        held_EN[expert_4[step], domain_4[step]] = False
    for step in range(steps):
        domain = domain_4[step]
        held_EN[slots_NJ[domain, slot_4[step]], domain] = True
    domain_EN, served_EN = state.domain_EN, state.served_EN
    old_domain_EN, old_served_EN = scratch.old_domain_EN, scratch.old_served_EN
    touched_E, several_E = scratch.touched_E, scratch.several_E
    for at in range(touched):
        expert = touched_E[at]
        count_E[expert] = scratch.old_count_E[expert]
        state.left_E[expert] = scratch.old_left_E[expert]
        for copy in range(count_E[expert]):
            domain_EN[expert, copy] = old_domain_EN[expert, copy]
            served_EN[expert, copy] = old_served_EN[expert, copy]
    for at in range(several):
        expert = several_E[at]
        for copy in range(count_E[expert]):
            served_EN[expert, copy] = old_served_EN[expert, copy]
    state.in_N[:] = scratch.old_in_N
