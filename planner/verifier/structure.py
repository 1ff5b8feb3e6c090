"""Is it a plan at all: slots, coverage, groups (design §5, rules 16 and 29)."""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from planner.manifest import Manifest
from planner.manifest.schema import Layer
from planner.topology.graph import ClusterTopology
from planner.verifier.constraints import check_constraints
from planner.verifier.ledger import Ledger
from planner.verifier.options import recorded_options
from planner.workload.model_spec import MoEModelSpec

TOLERANCE = 1 + Fraction(1, 10**9)
"""Reported figures are the nearest doubles."""
_DEGREE = re.compile(r"(tp|dp|ep)=([0-9]+)")


def check_options(manifest: Manifest, ledger: Ledger) -> None:
    """Check that the rules counted by are those the recorded options name.

    An option that was left to its default is recorded as null and binds nothing.
    """
    values, caps = manifest.inputs.options.values, manifest.caps
    stated: dict[str, object] = {
        "traffic": manifest.traffic,
        "selection": manifest.selection,
        "endpoint": manifest.endpoint,
        "routing": manifest.routing,
        "objective": manifest.objective.name,
        "layers": manifest.objective.layers,
        "seed": manifest.provenance.seed,
    }
    for name, used in stated.items():
        asked = values.get(name)
        ledger.expect(
            "options",
            asked is None or asked == used,
            f"inputs.options.values.{name}: {asked} was asked for, {used} was used",
        )
    for name, cap, lowest in (
        ("imbalance_cap", caps.gpu, caps.gpu_lowest),
        ("domain_imbalance_cap", caps.domain, caps.domain_lowest),
    ):
        asked, unit = values.get(name), "" if lowest is None else "x"
        ledger.expect(
            "options",
            asked == cap
            if asked is None or cap is None
            else _same_cap(str(asked), Fraction(str(cap)), unit),
            f"inputs.options.values.{name}: {asked} was asked for, {cap}{unit} was "
            "kept",
        )
        _check_lowest(manifest, name, lowest, ledger)


def _same_cap(text: str, cap: Fraction, unit: str) -> bool:
    """Whether a cap's text is this number in this unit."""
    number = text.removesuffix("x")
    try:
        return Fraction(number) == cap and text == number + unit
    except ValueError:
        return False


def _check_lowest(
    manifest: Manifest,
    name: str,
    lowest: Mapping[str, Sequence[str]] | None,
    ledger: Ledger,
) -> None:
    """What a relative cap multiplies is there for every workload and layer.

    No plan is below 1, and none of the baselines reported is below it in every layer.
    """
    if lowest is None:
        return
    ledger.expect(
        "options",
        set(lowest) == set(manifest.workloads)
        and all(len(row) == len(manifest.layers) for row in lowest.values()),
        f"caps: {name} needs the lowest baseline of every workload and layer",
    )
    each = [Fraction(text) for row in lowest.values() for text in row] or [Fraction(1)]
    field = "worst" if name == "imbalance_cap" else "domain_worst"
    reported = [
        Fraction(getattr(baseline.imbalance, field))
        for baseline in manifest.baselines.values()
        if baseline.imbalance is not None
    ]
    ledger.expect(
        "options",
        min(each) >= 1 and all(max(each) <= most * TOLERANCE for most in reported),
        f"caps: {name} is relative to max/mean below 1 or above a baseline's",
    )


def check_structure(
    manifest: Manifest, topology: ClusterTopology, model: MoEModelSpec, ledger: Ledger
) -> None:
    """Check everything that must hold before traffic means anything."""
    ids = [gpu.id for gpu in topology.gpus]
    ledger.expect(
        "GPUs in EP order",
        list(manifest.gpus) == ids,
        "gpus: not the GPUs of the topology in its order",
    )
    numbers = [layer.layer for layer in manifest.layers]
    ledger.expect(
        "layers of the model",
        numbers == list(model.moe_layers),
        f"layers: the plan has {numbers}, the model's MoE layers are "
        f"{list(model.moe_layers)}",
    )
    options = recorded_options(manifest)
    _check_sizes(manifest, ledger)
    if not options.single:
        _check_equal(manifest, ledger, alike=not options.free)
    if options.single:
        _check_single(manifest, ledger)
    for layer in manifest.layers:
        _check_experts(layer.layer, layer.slots, model.experts, ledger)
        _check_split(layer, len(manifest.groups.attention), ledger)
    _check_nesting(manifest, topology, model, ledger)
    check_constraints(manifest, topology, ledger)
    _check_attention_groups(manifest, topology, ledger)


def _check_single(manifest: Manifest, ledger: Ledger) -> None:
    """One EP set, and no GPU holds more than one expert of all layers together."""
    ledger.expect(
        "EP sets",
        manifest.groups.replicas == 1,
        "groups: with one expert per GPU altogether all GPUs are one EP set",
    )
    for rank, rows in enumerate(
        zip(*(layer.slots for layer in manifest.layers), strict=False)
    ):
        held = sum(len(row) for row in rows)
        ledger.expect(
            "one expert per GPU",
            held <= 1,
            f"EP rank {rank} holds {held} experts of all layers, 1 is allowed",
        )


def _check_sizes(manifest: Manifest, ledger: Ledger) -> None:
    """EP sets divide the cluster."""
    groups, gpus = manifest.groups, len(manifest.gpus)
    ledger.expect(
        "EP sets",
        groups.ep * groups.replicas == gpus,
        f"groups: ep {groups.ep} times {groups.replicas} replicas is not {gpus} GPUs",
    )
    ledger.expect(
        "EP sets",
        groups.expert_tp == 1 and groups.pp == 1,
        "groups: expert_tp and pp other than 1 are not supported",
    )
    for layer in manifest.layers:
        ledger.expect(
            "EP sets",
            len(layer.slots) == groups.ep,
            f"layer {layer.layer}: slots of {len(layer.slots)} GPUs, ep is {groups.ep}",
        )


def _check_equal(manifest: Manifest, ledger: Ledger, *, alike: bool) -> None:
    """Every GPU has as many slots in a layer; ``alike``: in all of them."""
    first = len(manifest.layers[0].slots[0])
    for layer in manifest.layers:
        per_gpu = first if alike else len(layer.slots[0])
        for rank, slots in enumerate(layer.slots):
            ledger.expect(
                "equal slots",
                len(slots) == per_gpu,
                f"layer {layer.layer}: EP rank {rank} has {len(slots)} slots, "
                f"others have {per_gpu}",
            )


def _check_experts(
    layer: int, slots: tuple[tuple[int, ...], ...], experts: int, ledger: Ledger
) -> None:
    """Ids in range, no two copies on one GPU, every expert somewhere."""
    held: set[int] = set()
    for rank, row in enumerate(slots):
        for expert in row:
            ledger.expect(
                "ids in range",
                0 <= expert < experts,
                f"layer {layer}: EP rank {rank} holds expert {expert}, "
                f"the model has {experts}",
            )
            ledger.expect(
                "no duplicates",
                row.count(expert) == 1,
                f"layer {layer}: EP rank {rank} holds expert {expert} twice",
            )
            held.add(expert)
    for expert in range(experts):
        ledger.expect(
            "coverage", expert in held, f"layer {layer}: expert {expert} has no copy"
        )


def _check_split(layer: Layer, dp_ranks: int, ledger: Ledger) -> None:
    """Weights are for DP ranks that exist; their form was checked on reading."""
    for expert, by_rank in (layer.split or {}).items():
        for dp_rank in by_rank:
            ledger.expect(
                "split weights",
                dp_rank == "*" or int(dp_rank) < dp_ranks,
                f"layer {layer.layer}: split of expert {expert} names DP rank "
                f"{dp_rank} of {dp_ranks}",
            )


def _check_nesting(
    manifest: Manifest, topology: ClusterTopology, model: MoEModelSpec, ledger: Ledger
) -> None:
    """Under ``--routing-groups nest`` a group's copies are all in one domain."""
    if manifest.inputs.options.values.get("routing_groups") != "nest":
        return
    domain_of, ep = topology.domain_G.tolist(), manifest.groups.ep
    groups = model.routing_groups
    if groups == 1:
        groups = len(set(domain_of[:ep]))
    ledger.expect(
        "routing groups",
        model.experts % groups == 0,
        f"routing_groups: {model.experts} experts are not {groups} equal groups",
    )
    if model.experts % groups:
        return
    size = model.experts // groups
    for layer in manifest.layers:
        for start in range(0, len(manifest.gpus), ep):
            homes: dict[int, set[int]] = {}
            for rank, row in enumerate(layer.slots):
                for expert in row if start + rank < len(domain_of) else ():
                    homes.setdefault(expert // size, set()).add(domain_of[start + rank])
            for group, domains in homes.items():
                ledger.expect(
                    "routing groups",
                    len(domains) == 1,
                    f"layer {layer.layer}: routing group {group} has copies in "
                    f"{len(domains)} domains; --routing-groups nest allows one",
                )


def _check_attention_groups(
    manifest: Manifest, topology: ClusterTopology, ledger: Ledger
) -> None:
    """Groups are disjoint, alike in size and inside a domain, and as many as asked.

    GPUs in no group hold experts only; equal homes on all GPUs, several EP sets and
    tokens that attend where their experts are need all GPUs in groups.
    """
    domain_of = {
        gpu.id: int(topology.domain_G[index]) for index, gpu in enumerate(topology.gpus)
    }
    groups = manifest.groups.attention
    members = [gpu for group in groups for gpu in group.gpus]
    ledger.expect(
        "attention groups",
        len(set(members)) == len(members) and set(members) <= set(manifest.gpus),
        "groups.attention: a GPU is in two groups, or not one of the plan's",
    )
    asked = dict(_DEGREE.findall(str(manifest.inputs.options.values.get("layout"))))
    for name, found in (("dp", len(groups)), ("tp", len(groups[0].gpus))):
        ledger.expect(
            "attention groups",
            int(asked.get(name, found)) == found,
            f"groups.attention: {name} is {found}, the layout asked for is "
            f"{asked.get(name)}",
        )
    everywhere = "dp" not in asked or manifest.groups.replicas > 1
    everywhere |= manifest.homes == "even" or any(
        trace.traffic == "direct" or trace.workload is not None
        for trace in manifest.inputs.traces
    )
    ledger.expect(
        "attention groups",
        not everywhere or sorted(members) == sorted(manifest.gpus),
        "groups.attention: not every GPU is in exactly one group",
    )
    for number, group in enumerate(groups):
        where = f"groups.attention: DP rank {group.dp_rank}"
        ledger.expect(
            "attention groups",
            group.dp_rank == number,
            f"{where} is listed in place {number}",
        )
        ledger.expect(
            "attention groups",
            len(group.gpus) == len(groups[0].gpus),
            f"{where} has {len(group.gpus)} GPUs, others {len(groups[0].gpus)}",
        )
        ledger.expect(
            "attention groups",
            len({domain_of.get(gpu) for gpu in group.gpus}) == 1,
            f"{where} spans several scale-up domains",
        )
