"""The options of a solve, with their defaults: the same words on every entry.

The command line, the Python API and REST all fill :class:`SolveOptions`; the
manifest records every value in force.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

AUTO = "auto"
"""``redundant`` that tries one more slot per GPU as long as it gains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveOptions:
    """Options of ``planner solve`` (design §8); None means the documented default.

    ``traffic`` follows ``phase`` (prefill: ``dedup_domain``, decode: ``copies``);
    ``homes`` is ``trace`` where the trace has ranks, else ``by_token``;
    ``endpoint`` follows rule 7; ``precision`` is the model's;
    ``imbalance_cap`` and ``domain_imbalance_cap`` are the most max/mean allowed
    (rule 26), as decimal text, or ``1.02x``: so many times the lowest baseline's;
    ``layout`` is text ``tp=T[,dp=D][,ep=N]``;
    ``deterministic`` limits work instead of seconds (docs/deterministic.md): the
    manifest is then the same for any number of threads, which is not recorded;
    ``groups`` is ``auto`` or ``placed``: which attention group each DP rank has is then
    searched together with the experts (``docs/groups.md``);
    ``redundant`` is ``auto`` (the fewest slots that hold every expert, then one more
    per GPU as long as each gains 1 % and memory allows, ``docs/replicas.md``) or a
    number of slots beyond the experts;
    ``routing_groups`` is ``free`` or ``nest`` (a group's copies in one domain);
    ``holdout`` is ``F`` or ``F:SALT``; ``combine`` says how several workloads make
    one value (rule 25): their weighted ``mean`` or the ``worst``; ``plan_for`` is
    ``unseen`` where the planning part is only a sample of the tokens to come;
    ``constraints`` is the content of a constraints file (docs/constraints.md),
    ``previous`` the ``gpus`` and ``layers`` of an earlier plan, from which at most
    ``max_moves`` experts move.
    """

    phase: str = "prefill"
    traffic: str | None = None
    selection: str = "nearest"
    objective: str = "link_time"
    layers: str = "sequential"
    combine: str = "mean"
    link_classes: tuple[str, ...] | None = None
    homes: str | None = None
    policy: str = "uniform"
    redundant: str = AUTO
    layout: str = "auto"
    groups: str = "auto"
    routing_groups: str = "free"
    imbalance_cap: str | None = None
    domain_imbalance_cap: str | None = None
    kv_tokens: int | None = None
    mem_fraction: float | None = None
    batch_tokens: int = 4096
    precision: str | None = None
    endpoint: str | None = None
    routing: str | None = None
    message_bytes: tuple[int, int] | None = None
    strategy: str = "auto"
    time_limit: float = 60.0
    gap: float = 0.0
    threads: int | None = None
    seed: int = 0
    deterministic: bool = False
    holdout: str = "0.5"
    plan_for: str = "seen"
    constraints: Mapping[str, Any] | None = None
    previous: Mapping[str, Any] | None = None
    max_moves: int | None = None


def is_relative(cap: str) -> bool:
    """Whether a cap counts in the lowest baseline's max/mean."""
    return cap.endswith("x")


def cap_number(cap: str) -> Fraction:
    """Return the number of a cap, relative or not."""
    return Fraction(cap.removesuffix("x"))
