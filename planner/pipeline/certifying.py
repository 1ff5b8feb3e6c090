"""Have the certificates of a bound checked before anything is claimed from them."""

from fractions import Fraction
from typing import Any

from planner.evaluator.joint import combined, planning_tokens
from planner.instance import PlacementInstance, scope_of
from planner.strategies.base import Bound
from planner.verifier.certificates import Evidence, chained, lifted, proven, starts

Certified = tuple[Fraction, ...]


def certified_layers(
    instance: PlacementInstance, bound: Bound | None
) -> Certified | None:
    """Return what the verifier's checkers prove for every layer; None if nothing.

    A layer without a certificate proves 0.
    """
    if bound is None or all(layer.certificate is None for layer in bound.layers):
        return None
    scope = scope_names(instance)
    return tuple(
        Fraction(0)
        if each.certificate is None
        else proven(each.certificate, evidence(instance, layer, scope))
        for layer, each in enumerate(bound.layers)
    )


def certified_whole(instance: PlacementInstance, layers: Certified) -> Fraction:
    """Return the bound of the whole objective that the layers' add up to."""
    if instance.objective.layers == "worst_layer":
        return max(layers)
    return sum(layers, Fraction(0))


def certified_bound(instance: PlacementInstance, bound: Bound) -> Fraction | None:
    """Return what all certificates of a bound prove together; None if nothing."""
    if bound.workloads:
        each = [
            None if own is None else certified_bound(view, own)
            for view, own in zip(instance.views, bound.workloads, strict=True)
        ]
        if all(proof is None for proof in each):
            return None
        proofs = [proof or Fraction(0) for proof in each]
        return combined(instance, proofs, planning_tokens(instance))
    layers = certified_layers(instance, bound)
    if layers is None:
        return None
    scope, mode = scope_names(instance), instance.objective.layers
    seen = [evidence(instance, layer, scope) for layer in range(len(layers))]
    found = certified_whole(instance, layers)
    certificates = [each.certificate for each in bound.layers]
    if bound.starts and all(each is not None for each in certificates):
        given = [each or {} for each in certificates]
        found = lifted(layers, starts(bound.starts, given, seen), mode)
    if bound.chain is not None:
        found = max(found, chained(bound.chain, seen, mode))
    return found


def certificate_of(bound: Bound) -> dict[str, Any] | None:
    """Return the certificate of a bound as the manifest has it; None without any."""
    if bound.workloads:
        each = [None if own is None else certificate_of(own) for own in bound.workloads]
        return {"kind": "workloads", "workloads": each}
    layers = [layer.certificate for layer in bound.layers]
    if all(certificate is None for certificate in layers):
        return None
    found: dict[str, Any] = {"kind": "layers", "layers": layers}
    if bound.starts:
        found["starts"] = list(bound.starts)
    if bound.chain is not None:
        found["chain"] = dict(bound.chain)
    return found


def scope_names(instance: PlacementInstance) -> frozenset[str]:
    """Return the names of the links that count for ``link_tokens``."""
    links = instance.topology.links
    inside_A = scope_of(links, instance.objective.link_classes)
    return frozenset(link.name for link in links if inside_A[link.index])


def evidence(
    instance: PlacementInstance, layer: int, scope: frozenset[str] | None = None
) -> Evidence:
    """Return what a checker may see of one layer of the planning part.

    ``scope`` are the names of :func:`scope_names`, where they are known already.
    """
    caps = instance.caps
    return Evidence(
        topology=instance.topology,
        routes=instance.routes,
        layout=instance.layout,
        traffic=instance.traffic,
        selection=instance.selection,
        endpoint=instance.endpoint,
        objective=instance.objective.name,
        experts=instance.model.experts,
        slots_per_gpu=instance.slots_per_gpu,
        single=instance.single,
        message=instance.message_bytes,
        scope=scope_names(instance) if scope is None else scope,
        cap_gpu=caps.gpu_at(layer),
        cap_domain=caps.domain_at(layer),
        part=instance.planning,
        layer=layer,
        nested_groups=instance.nested_groups,
    )
