"""What a strategy is given and what it returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any, Protocol

from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When to stop: seconds, relative gap, threads; the seed; where layers run."""

    seconds: float = 60.0
    gap: float = 0.0
    threads: int = 2
    seed: int = 0
    engine: str = "threads"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBound:
    """A valid lower bound of one layer's objective.

    Attributes
    ----------
    value
        In the unit of the objective.
    method
        What proved it: ``cut-lp``, ``count``, ``mean``, ``threshold``, …
    of
        The problem it belongs to (rule 28: ``copies/weighted``).
    branching
        Whether the proof needed branching (``solver_claimed``).
    certificate
        JSON values from which the verifier proves a bound again by the closed form
        of their ``kind`` (``docs/certificates.md``); None if there are none.
    """

    value: float
    method: str
    of: str
    branching: bool = False
    certificate: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A valid lower bound of the whole objective, made of those of its layers.

    ``starts`` names the ports, inward and outward, of domains of which one must begin
    with experts of a layer after the first: that lifts the whole above its layers
    (``docs/formulation.md``). ``chain`` proves the whole at once, beside its layers. Of
    several workloads it is made of the ``workloads``' own, each in its own unit, and
    has no layers.
    """

    value: float
    layers: tuple[LayerBound, ...]
    starts: tuple[str, ...] = ()
    chain: Mapping[str, Any] | None = None
    workloads: tuple["Bound | None", ...] = ()

    @property
    def method(self) -> str:
        """Methods of the layers, joined."""
        return "+".join(sorted({layer.method for layer in self._parts}))

    @property
    def of(self) -> str:
        """The problems that are bounded, joined."""
        return " + ".join(sorted({layer.of for layer in self._parts}))

    @property
    def branching(self) -> bool:
        """Whether some layer's proof needed branching."""
        return any(layer.branching for layer in self._parts)

    @property
    def _parts(self) -> list[LayerBound]:
        """Layers of the whole and of all workloads."""
        own = [bound.layers for bound in self.workloads if bound is not None]
        return [layer for layers in (self.layers, *own) for layer in layers]


def whole_bound(layers: Sequence[LayerBound], layer_mode: str) -> Bound:
    """Return the bound of the whole: the sum of the layers, or their maximum."""
    values = [layer.value for layer in layers]
    whole = max(values) if layer_mode == "worst_layer" else fsum(values)
    return Bound(value=whole, layers=tuple(layers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One step of the search: seconds since start, incumbent, bound."""

    seconds: float
    objective: float | None
    bound: float | None


Progress = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class SolveResult:
    """A plan with its evidence.

    ``reason`` is why the search stopped: ``optimal``, ``gap``, ``limit``,
    ``complete`` (a heuristic that ran to its end) or ``interrupted``; ``limit``
    names the limit that was hit.
    """

    plan: PlacementPlan
    reason: str
    limit: str | None = None
    bound: Bound | None = None
    history: tuple[Event, ...] = ()
    layer_strategies: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


class Strategy(Protocol):
    """A way to make a plan.

    ``starts`` are legal plans (no duplicates) to begin from; may be empty.
    """

    def __call__(
        self,
        instance: PlacementInstance,
        limits: Limits,
        starts: Sequence[PlacementPlan] = (),
        progress: Progress | None = None,
    ) -> SolveResult:
        """Return the best plan found within the limits."""
        ...


STRATEGIES: Registry[Strategy] = Registry("strategy")
