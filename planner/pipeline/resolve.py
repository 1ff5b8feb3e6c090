"""Defaults and limits that follow from the options, one small rule each."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from planner.errors import UsageError
from planner.instance import (
    COMBINATIONS,
    LAYER_MODES,
    OBJECTIVES,
    PLAN_FOR,
    SELECTIONS,
    Caps,
    Lowest,
    PlacementInstance,
)
from planner.options import SolveOptions, cap_number, is_relative
from planner.topology.graph import ClusterTopology
from planner.traffic.base import TRAFFIC
from planner.workload.model_spec import BYTES_PER_VALUE

PHASE_TRAFFIC = {"prefill": "dedup_domain", "decode": "copies"}
FREE = "free"
POLICIES = ("uniform", FREE, "one_expert_per_gpu", "one_expert_per_gpu_total")
SINGLE = "one_expert_per_gpu_total"
SINGLE_TRAFFIC = {
    "auto": ("copies", "dedup_gpu", "dedup_domain", "direct"),
    "single": ("copies", "dedup_gpu", "dedup_domain"),
    "flow": ("copies", "direct"),
    "contiguous": ("copies", "dedup_gpu", "dedup_domain", "direct"),
    "round_robin": ("copies", "dedup_gpu", "dedup_domain", "direct"),
}
"""Strategies that place one expert per GPU, and the traffic that they plan for."""
MOST_CAP = 10**6
"""No max/mean of GPUs that can be planned comes near."""
HOMES = ("trace", "by_token", "round_robin", "balanced", "by_tag")


def check_names(options: SolveOptions) -> None:
    """Refuse words and numbers that no rule knows.

    Raises
    ------
    UsageError
        Naming the flag, the value and what it may be.
    """
    known = {
        "phase": tuple(PHASE_TRAFFIC),
        "selection": SELECTIONS,
        "objective": OBJECTIVES,
        "layers": LAYER_MODES,
        "policy": POLICIES,
        "groups": ("auto", "placed"),
        "routing_groups": ("free", "nest"),
        "combine": COMBINATIONS,
        "plan_for": PLAN_FOR,
    }
    for name, words in known.items():
        _check_word(name, getattr(options, name), words)
    if options.traffic is not None:
        TRAFFIC.get(options.traffic)
    if options.homes is not None:
        _check_word("homes", options.homes, HOMES)
    if options.precision is not None:
        _check_word("precision", options.precision, tuple(BYTES_PER_VALUE))
    if options.layers == "pipelined":
        raise UsageError(
            "--layers pipelined is reported for every plan but not optimized yet; "
            "use sequential or worst_layer"
        )
    for name in ("time_limit", "batch_tokens"):
        if not 0 < getattr(options, name) < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} must be finite and > 0")
    if not 0 <= options.gap < 1:
        raise UsageError(f"--gap {options.gap} must be >= 0 and < 1")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads {options.threads} must be >= 1")
    if options.max_moves is not None and options.previous is None:
        raise UsageError("--max-moves counts from a plan: give it with --previous")
    if options.max_moves is not None and options.max_moves < 0:
        raise UsageError(f"--max-moves {options.max_moves} must be >= 0")
    if options.kv_tokens is not None and options.mem_fraction is not None:
        raise UsageError("give --kv-tokens or --mem-fraction, not both")
    check_caps(options)


def check_single(instance: PlacementInstance, strategy: str) -> None:
    """Refuse what one expert per GPU altogether does not go with.

    Raises
    ------
    UsageError
        For a traffic mode, an objective or a strategy that does not plan it.
    """
    if not instance.single:
        return
    _check_goes("", "strategy", strategy, tuple(SINGLE_TRAFFIC))
    _check_goes("", "objective", instance.objective.name, ("link_time", "link_tokens"))
    for view in instance.views:
        words = SINGLE_TRAFFIC[strategy]
        _check_goes(f" and --strategy {strategy}", "traffic", view.traffic, words)


def check_free(
    instance: PlacementInstance, options: SolveOptions, *, dumped: bool
) -> None:
    """Refuse what memory shared by all layers does not go with.

    Parameters
    ----------
    dumped
        Whether the model of one number of slots is written.

    Raises
    ------
    UsageError
        Naming the other flag.
    """
    if options.policy != FREE:
        return
    chained = any(TRAFFIC.get(view.traffic).chained for view in instance.views)
    relative = [
        text
        for text in (options.imbalance_cap, options.domain_imbalance_cap)
        if text is not None and is_relative(text)
    ]
    for holds, what in (
        (chained, "--traffic direct, which ties all layers together"),
        (options.mem_fraction is not None, "--mem-fraction: give --kv-tokens"),
        (bool(relative), "caps relative to a baseline's: give max/mean, as 1.1"),
        (options.routing_groups == "nest", "--routing-groups nest"),
        (instance.constraints is not None, "--constraints and --previous"),
        (options.groups != "auto", "--groups placed"),
        (dumped, "--dump-model, which writes equal slots in every layer"),
    ):
        if holds:
            raise UsageError(
                f"--policy {FREE} does not go with {what} (or use --policy uniform)"
            )


def _check_goes(beside: str, flag: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise UsageError(
            f"--policy {SINGLE}{beside} does not go with --{flag} {value}; choose from "
            f"{', '.join(words)}"
        )


def _check_word(name: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        flag = f"--{name.replace('_', '-')}"
        raise UsageError(f"{flag} {value!r}: choose from {', '.join(words)}")


def resolve_traffic(traffic: str | None, phase: str, *, counts_only: bool) -> str:
    """Return the traffic mode: as given, else by phase (design §8).

    A counts table holds no sets of experts, so only linear modes fit it (rule 11).
    """
    if not counts_only:
        return traffic or PHASE_TRAFFIC[phase]
    traffic = traffic or "copies"
    if not TRAFFIC.get(traffic).linear:
        raise UsageError(
            f"--traffic {traffic} needs the experts of every token; a counts table "
            "only has totals: use --traffic copies"
        )
    return traffic


def resolve_endpoint(
    options: SolveOptions, topology: ClusterTopology, traffic: str, notes: list[str]
) -> str:
    """Return the endpoint mode (rule 7).

    A file's endpoint that the mode does not accept is ignored with a note; on the
    command line it is an error.
    """
    accepted = TRAFFIC.get(traffic).endpoints
    if options.endpoint is not None:
        if options.endpoint not in accepted:
            raise UsageError(
                f"--endpoint {options.endpoint!r} does not go with {traffic}; choose "
                f"from {', '.join(accepted)}"
            )
        return options.endpoint
    if topology.endpoint in accepted:
        return topology.endpoint
    if topology.endpoint is not None:
        notes.append(
            f"the topology's endpoint {topology.endpoint} does not go with {traffic}: "
            f"{accepted[0]} is used"
        )
    return accepted[0]


def check_caps(options: SolveOptions) -> None:
    """Refuse caps that are no numbers, or below 1 where they are a max/mean.

    Raises
    ------
    UsageError
        Naming the flag and the value.
    """
    for flag, text in (
        ("imbalance-cap", options.imbalance_cap),
        ("domain-imbalance-cap", options.domain_imbalance_cap),
    ):
        if text is not None:
            _check_cap(flag, text)


def _check_cap(flag: str, text: str) -> None:
    try:
        value = Decimal(text.removesuffix("x"))
    except InvalidOperation:
        raise UsageError(
            f"--{flag} {text!r} is not a number, as 1.1, or a number of times the "
            "lowest baseline's max/mean, as 1.02x"
        ) from None
    if is_relative(text):
        if not (value.is_finite() and 0 < value < MOST_CAP):
            raise UsageError(
                f"--{flag} {text} must be > 0 and finite (times the lowest baseline's "
                "max/mean)"
            )
    elif not (value.is_finite() and 1 <= value < MOST_CAP):
        raise UsageError(f"--{flag} {text} must be finite and >= 1 (max/mean)")


def resolve_caps(options: SolveOptions, lowest: Callable[[str], Lowest]) -> Caps:
    """Return the imbalance caps (rule 26).

    Parameters
    ----------
    lowest
        Returns what a relative cap multiplies, for the name of its option.
    """

    def number(text: str | None) -> float | None:
        return None if text is None else float(cap_number(text))

    def unit(name: str, text: str | None) -> Lowest | None:
        return lowest(name) if text is not None and is_relative(text) else None

    gpu, domain = options.imbalance_cap, options.domain_imbalance_cap
    return Caps(
        gpu=number(gpu),
        domain=number(domain),
        gpu_lowest=unit("imbalance_cap", gpu),
        domain_lowest=unit("domain_imbalance_cap", domain),
    )
