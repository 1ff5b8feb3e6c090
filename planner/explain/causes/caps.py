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

FLAGS = {
    "imbalance_cap": "--imbalance-cap",
    "domain_imbalance_cap": "--domain-imbalance-cap",
}
DIGITS = 4
SLOT_TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least max/mean of any placement, and who makes it."""

    value: Fraction
    layer: int
    expert: int


def _cause(name: str) -> Callable[[Setup], Finding | None]:
    def found(setup: Setup) -> Finding | None:
        text = getattr(setup.options, name)
        floor = None if text is None else floor_of(setup, name)
        if floor is None or Fraction(text) >= floor.value:
            return None
        least = float(floor.value)
        return Finding(
            says=f"{FLAGS[name]} {text} is below the floor {least:.4f} of layer "
            f"{floor.layer}: expert {floor.expert} alone makes it with "
            f"{setup.slot_count} slots",
            numbers={
                "cap": float(text),
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

    An expert's busiest copy carries at least load/copies, so with P slots some GPU
    carries at least t* = min{t : Σ ⌈load/t⌉ ≤ P}. A domain carries what its fullest
    GPU does. EP sets share the tokens: the set with most has at least the mean.
    """
    gpus = setup.layout.gpu_count
    across = max(len(members) for members in setup.topology.domains)
    parts = setup.layout.sets * (across if name == "domain_imbalance_cap" else 1)
    floors = []
    for load_LE in setup.loads():
        for layer, load_E in zip(setup.model.moe_layers, load_LE, strict=True):
            total = int(load_E.sum())
            if total:
                least, expert = least_copy_load(load_E.tolist(), setup.slot_count)
                value = least * gpus / total / parts
                floors.append(Floor(value=value, layer=layer, expert=expert))
    return max(floors, key=lambda floor: floor.value, default=None)


def cap_ladders(setup: Setup, name: str) -> tuple[Ladder, ...]:
    """Raise the cap to what a plan reaches, or add slots, or lift the cap."""
    text = getattr(setup.options, name)
    now = Fraction(text)
    column = 0 if name == "imbalance_cap" else 1
    reached = sorted(pair[column] for pair in setup.reached())
    raised = [_upwards(value) for value in reached if Fraction(str(value)) > now]
    ladders: list[Ladder] = [
        tuple(
            Change(
                what=f"{FLAGS[name]} {cap} instead of {text}",
                cost=(OPTION, float(Fraction(cap) / now - 1)),
                options={name: cap},
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
