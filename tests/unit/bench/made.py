"""Results and baseline entries made by hand, for tests of the rules."""

from fractions import Fraction
from typing import Any

from planner.bench.baseline import Entry
from planner.bench.result import Metrics, Reached, Result, Unseen, Yardstick
from planner.bench.rules import Before

DIGEST = "a" * 64
METRICS = Metrics(
    max_link_tokens=1.0,
    inter_domain_bytes=1.0,
    inter_domain_transfers=1.0,
    memory_headroom=0.5,
    redundant_slots=0,
    home_tokens_max_over_mean=1.0,
    imbalance_mean=1.0,
    imbalance_worst=1.0,
    domain_imbalance_worst=1.0,
    primal_integral=None,
)


def exact(value: object) -> str:
    """``numerator/denominator`` of a number."""
    number = Fraction(str(value))
    return f"{number.numerator}/{number.denominator}"


def yardstick(
    value: object, *, legal: bool = True, keeps_caps: bool = True
) -> Yardstick:
    """A baseline's value."""
    return Yardstick(exact=exact(value), legal=legal, keeps_caps=keeps_caps)


def reached(value: object = 100, **changes: Any) -> Reached:
    """A verified plan of 100 pairs with a bound of 80; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "objective": "gpu_tokens (sequential)",
        "exact": exact(value),
        "unit": "pairs",
        "status": "feasible",
        "bound": 80.0,
        "method": "counting",
        "of": "copies/weighted",
        "certificate": None,
        "gap": 0.2,
        "findings": (),
        "other_question": (),
        "keeps_caps": True,
        "yardsticks": {"eplb_global": yardstick(120), "contiguous": yardstick(150)},
        "unseen": Unseen(value=110.0, ratio_eplb=0.9),
        "metrics": METRICS,
        "stopped": "complete",
        "layers": (),
    }
    return Reached(**(fields | changes))


def result(value: object = 100, **changes: Any) -> Result:
    """A result with :func:`reached`; ``changes`` of either are sorted out."""
    own = {name: changes.pop(name) for name in list(changes) if name in OWN}
    fields: dict[str, Any] = {
        "name": "case",
        "family": "made",
        "tags": ("fast",),
        "digest": DIGEST,
        "expect": "plan",
        "outcome": "plan",
        "seconds": 1.0,
        "cpu_seconds": 1.0,
    }
    if own.get("outcome", "plan") == "plan":
        fields["reached"] = reached(value, **changes)
    return Result(**(fields | own))


OWN = tuple(Result.model_fields)


def entry(value: object = 100, **changes: Any) -> Entry:
    """The baseline's entry of :func:`result`; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "digest": DIGEST,
        "outcome": "plan",
        "status": "feasible",
        "exact": exact(value),
        "unit": "pairs",
        "bound": 80.0,
        "ratio_eplb": 0.8,
        "unseen": 110.0,
        "yardsticks": {"eplb_global": exact(120), "contiguous": exact(150)},
        "cpu_seconds": 1.0,
    }
    return Entry(**(fields | changes))


def before(
    value: object = 100, *, times_compare: bool = True, **changes: Any
) -> Before:
    """What a result is compared with."""
    return Before(
        entry=entry(value, **changes),
        origin="the baseline",
        times_compare=times_compare,
    )
