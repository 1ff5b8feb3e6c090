"""An imbalance cap below what every placement must exceed (rule 26)."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from planner.explain.causes.base import (
    CAUSES,
    OPTION,
    Change,
    Finding,
    Ladder,
    Setup,
)
from planner.options import cap_number, is_relative

FLAGS = {
    "imbalance_cap": "--imbalance-cap",
    "domain_imbalance_cap": "--domain-imbalance-cap",
}
DIGITS = 4
SLOT_TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least cap that any placement keeps, in its unit.

    ``expert`` makes it; None where it is the mean.
    """

    value: Fraction
    layer: int
    expert: int | None


def _cause(name: str) -> Callable[[Setup], Finding | None]:
    def found(setup: Setup) -> Finding | None:
        text = getattr(setup.options, name)
        floor = None if text is None else floor_of(setup, name)
        if floor is None or cap_number(text) >= floor.value:
            return None
        least = float(floor.value)
        unit = " of the lowest baseline's max/mean" if is_relative(text) else ""
        who = f"expert {floor.expert} alone makes it with {setup.slot_count} slots"
        if floor.expert is None:
            who = "no max/mean is below 1"
        return Finding(
            says=f"{FLAGS[name]} {text} is below the floor {least:.4f}{unit} of layer "
            f"{floor.layer}: {who}",
            numbers={
                "cap": float(cap_number(text)),
                "floor": least,
                "layer": floor.layer,
                "expert": floor.expert,
            },
            ladders=cap_ladders(setup, name),
        )

    return found


for _name in FLAGS:
    CAUSES.register(_name)(_cause(_name))


def floor_of(setup: Setup, name: str) -> Floor | None:
    """Return the highest floor of any layer and workload; None without tokens.

    A relative cap's floor is a multiple of the lowest baseline's max/mean.

    An expert's busiest copy carries at least load/copies, so with P slots some GPU
    carries at least t* = min{t : Σ ⌈load/t⌉ ≤ P}. A domain carries what its fullest
    GPU does. EP sets share the tokens: the set with most has at least the mean.
    """
    gpus = setup.layout.gpu_count
    across = max(len(members) for members in setup.topology.domains)
    parts = setup.layout.sets * (across if name == "domain_imbalance_cap" else 1)
    relative = is_relative(getattr(setup.options, name))
    floors = []
    for number, load_LE in enumerate(setup.loads()):
        for at, layer in enumerate(setup.model.moe_layers):
            total = int(load_LE[at].sum())
            if total:
                least, expert = least_copy_load(load_LE[at].tolist(), setup.slot_count)
                value = least * gpus / total / parts
                unit = setup.lowest(name)[number][at] if relative else Fraction(1)
                made = expert if value > 1 else None
                value = max(value, Fraction(1)) / unit
                floors.append(Floor(value=value, layer=layer, expert=made))
    return max(floors, key=lambda floor: floor.value, default=None)


def cap_ladders(setup: Setup, name: str) -> tuple[Ladder, ...]:
    """Raise the cap to what a plan reaches, or add slots, or lift the cap."""
    text = getattr(setup.options, name)
    now, unit = cap_number(text), "x" if is_relative(text) else ""
    column = 0 if name == "imbalance_cap" else 1
    reached = sorted(pair[column] for pair in setup.reached())
    raised = [_upwards(value) for value in reached if Fraction(str(value)) > now]
    ladders: list[Ladder] = [
        tuple(
            Change(
                what=f"{FLAGS[name]} {cap}{unit} instead of {text}",
                cost=(OPTION, float(Fraction(cap) / now - 1)),
                options={name: f"{cap}{unit}"},
            )
            for cap in dict.fromkeys(raised)
        )
    ]
    if setup.options.policy == "uniform" and not setup.slots_given:
        ladders.append(_more_slots(setup))
    return tuple(filter(None, ladders))


def least_copy_load(loads: list[int], slots: int) -> tuple[Fraction, int]:
    """Return t* = min{t : Σ ⌈load/t⌉ ≤ slots} and an expert that attains it."""
    positive = [(load, expert) for expert, load in enumerate(loads) if load > 0]
    copies = dict.fromkeys((expert for _, expert in positive), 1)
    load_of = {expert: load for load, expert in positive}
    for _ in range(max(0, slots - len(loads))):
        heaviest = max(copies, key=lambda e: (Fraction(load_of[e], copies[e]), -e))
        copies[heaviest] += 1
    heaviest = max(copies, key=lambda e: (Fraction(load_of[e], copies[e]), -e))
    return Fraction(load_of[heaviest], copies[heaviest]), heaviest


def _upwards(value: float) -> str:
    """Return a cap of few digits that is not below the value."""
    return f"{ceil(value * 10**DIGITS) / 10**DIGITS:.{DIGITS}f}"


def _more_slots(setup: Setup) -> Ladder:
    experts, ep = setup.model.experts, setup.layout.ep
    most = min(setup.slots_per_gpu + SLOT_TRIES, experts)
    return tuple(
        Change(
            what=f"--redundant {ep * slots - experts} instead of "
            f"{setup.slot_count - experts}",
            cost=(OPTION, slots / setup.slots_per_gpu - 1),
            options={"redundant": str(ep * slots - experts)},
        )
        for slots in range(setup.slots_per_gpu + 1, most + 1)
    )
