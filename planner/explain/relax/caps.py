"""Looser imbalance caps, and none at all."""

from dataclasses import replace
from decimal import Decimal

from planner.explain.relax.base import RELAXATIONS, Question, Relaxation

NAMES = {"gpu": "imbalance cap", "domain": "domain imbalance cap"}


@RELAXATIONS.register("cap")
def looser_caps(question: Question) -> list[Relaxation]:
    """Each cap in force, one step looser and lifted."""
    caps = question.instance.caps
    found = []
    for field, name in NAMES.items():
        cap = getattr(caps, field)
        if cap is None:
            continue
        looser = float(Decimal(str(cap)) + Decimal(str(question.cap_step)))
        for value, words in ((looser, f"{looser:g} instead of {cap:g}"), (None, "off")):
            eased = replace(caps, **{field: value})
            found.append(
                Relaxation(
                    kind="cap",
                    what=f"{name} {words}",
                    instance=replace(question.instance, caps=eased),
                    plan=question.plan,
                    same_loads=True,
                )
            )
    return found
