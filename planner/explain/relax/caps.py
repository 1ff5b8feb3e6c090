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
        unit = "x" if getattr(caps, f"{field}_lowest") else ""
        raised = f"{looser:g}{unit} instead of {cap:g}{unit}"
        for value, words in ((looser, raised), (None, "off")):
            eased = replace(caps, **{field: value})  # type: ignore[arg-type]
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
