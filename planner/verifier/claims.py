"""Do the claims follow from the figures: bound, gap, status, caps (rules 26, 28)."""

from collections.abc import Sequence
from fractions import Fraction

from planner.errors import ManifestError
from planner.manifest import Manifest, exact_text
from planner.verifier.certificates import (
    MALFORMED,
    Certificate,
    Evidence,
    chained,
    lifted,
    proven,
    starts,
)
from planner.verifier.ledger import Ledger
from planner.verifier.options import nested_groups
from planner.verifier.setting import Setting
from planner.verifier.traffic import tokens_of
from planner.verifier.values import Counted, joint_value, joint_values
from planner.witness import figures
from planner.witness.figures import LayerFigures

TOLERANCE = 1 + Fraction(1, 10**9)


def check_claims(counted: Counted, ledger: Ledger) -> None:
    """Check what the manifest says about its own quality.

    ``counted`` are the witness's figures of the planning parts.
    """
    settings = [setting for setting, _ in counted]
    manifest = settings[0].manifest
    tokens = [tokens_of(setting.parts.planning) for setting in settings]
    found = joint_values(counted, tokens)
    value = found[manifest.objective.name][manifest.objective.layers]
    certified = certified_bound(settings, tokens)
    _check_bound(manifest, value, certified, ledger)
    _check_status(manifest, value, certified, ledger)
    for setting, layers in counted:
        _check_caps(setting, layers, ledger)
    _check_workloads(counted, tokens, ledger)


def certified_bound(
    settings: Sequence[Setting], tokens: Sequence[Fraction]
) -> Fraction | None:
    """Return the bound that the certificates prove together, None without any.

    Of several workloads each has its own, and no plan is better for one than a plan
    made for it alone: what they prove is combined as their values are (rule 25).

    Raises
    ------
    ManifestError
        For a certificate of unknown kind or shape.
    """
    bound = settings[0].manifest.bound
    if bound is None or bound.certificate is None:
        return None
    if len(settings) == 1:
        return _certified(settings[0], bound.certificate)
    each = bound.certificate.get("workloads", ())
    if bound.certificate.get("kind") != "workloads" or len(each) != len(settings):
        raise ManifestError(
            "must be of kind workloads and hold one certificate for each",
            where="/bound/certificate",
            value=bound.certificate.get("kind"),
        )
    proofs = [
        Fraction(0) if own is None else _certified(setting, own)
        for setting, own in zip(settings, each, strict=True)
    ]
    return joint_value(settings, proofs, tokens)


def _certified(setting: Setting, certificate: Certificate) -> Fraction:
    """Return what one workload's certificate proves.

    A layer without one proves 0; ``sequential`` adds the layers up, ``worst_layer``
    takes the largest.
    """
    manifest = setting.manifest
    count = len(manifest.layers)
    certificates: list[Certificate | None] = [certificate] * count
    if certificate.get("kind") == "layers":
        certificates = list(certificate.get("layers", ()))
    if len(certificates) != count:
        raise ManifestError(
            "must hold one entry per layer",
            where="/bound/certificate/layers",
            value=len(certificates),
        )
    scope = scope_of(setting)
    seen = [evidence_of(setting, layer, scope) for layer in range(count)]
    values = [
        Fraction(0) if each is None else proven(each, layer)
        for each, layer in zip(certificates, seen, strict=True)
    ]
    mode = manifest.objective.layers
    given = [each or {} for each in certificates]
    found = _together(values, certificate, given, seen, mode)
    if "chain" not in certificate:
        return found
    return max(found, _chained(certificate["chain"], seen, mode))


def _together(
    values: Sequence[Fraction],
    certificate: Certificate,
    certificates: Sequence[Certificate],
    seen: Sequence[Evidence],
    mode: str,
) -> Fraction:
    """Return what the layers' bounds make of the whole."""
    ports = certificate.get("starts")
    if ports is not None and mode != "pipelined":
        return lifted(values, _rises(ports, certificates, seen), mode)
    if mode == "worst_layer":
        return max(values)
    # Each layer is a barrier: their bounds add up only where their values do.
    if mode == "sequential":
        return sum(values, Fraction(0))
    return Fraction(0)


def _chained(claimed: Certificate, seen: Sequence[Evidence], mode: str) -> Fraction:
    """Return what is proven of all layers at once.

    Raises
    ------
    ManifestError
        If it does not have its shape.
    """
    try:
        return chained(claimed, seen, mode)
    except MALFORMED as error:
        raise ManifestError(
            f"does not have the shape of a proof of all layers: {error!r}",
            where="/bound/certificate/chain",
        ) from error


def _rises(
    ports: Sequence[str], certificates: Sequence[Certificate], seen: Sequence[Evidence]
) -> list[Fraction]:
    """Return what a late start adds to every layer but the first.

    Raises
    ------
    ManifestError
        If the certificates are not of the kind that this adds to.
    """
    try:
        return starts(ports, certificates, seen)
    except MALFORMED as error:
        raise ManifestError(
            f"goes with certificates of kind walks in every layer: {error!r}",
            where="/bound/certificate/starts",
        ) from error


def scope_of(setting: Setting) -> frozenset[str]:
    """Return the names of the links that count for ``link_tokens``."""
    scope = figures.scope(setting.topology.links, setting.options.link_classes)
    return frozenset(link.name for link in scope)


def evidence_of(setting: Setting, layer: int, scope: frozenset[str]) -> Evidence:
    """Return what a checker may see of one layer of the planning part."""
    manifest, (of_gpu, of_domain) = setting.manifest, _caps_at(setting, layer)
    return Evidence(
        topology=setting.topology,
        routes=setting.routes,
        layout=setting.layout,
        traffic=setting.traffic,
        selection=manifest.selection,
        endpoint=setting.endpoint,
        objective=manifest.objective.name,
        experts=setting.model.experts,
        slots_per_gpu=1
        if setting.options.single
        else len(manifest.layers[layer].slots[0]),
        single=setting.options.single,
        free=setting.options.free,
        message=setting.message,
        scope=scope,
        cap_gpu=of_gpu,
        cap_domain=of_domain,
        part=setting.parts.planning,
        layer=layer,
        nested_groups=nested_groups(setting.options, setting.model, setting.layout),
    )


def _check_bound(
    manifest: Manifest, value: Fraction, certified: Fraction | None, ledger: Ledger
) -> None:
    bound = manifest.bound
    if bound is None:
        ledger.expect(
            "bound and gap", manifest.gap is None, "gap: there is none without a bound"
        )
        return
    if bound.certified_exact is not None:
        found = None if certified is None else exact_text(certified)
        ledger.equal(
            "certificate", "bound.certified_exact", bound.certified_exact, found
        )
    ledger.expect(
        "certificate",
        certified is None or certified <= value,
        "bound.certificate: proves more than the objective: the rules were broken",
    )
    proven = Fraction(bound.value)
    ledger.expect(
        "bound and gap",
        proven <= value * TOLERANCE,
        f"bound.value: {bound.value} is above the objective {float(value)}",
    )
    # A bound that rounding puts above the objective leaves no gap.
    gap = float(max(Fraction(0), value - proven) / value) if value else 0.0
    ledger.equal("bound and gap", "gap", manifest.gap, gap)


def _check_status(
    manifest: Manifest,
    value: Fraction,
    certified: Fraction | None,
    ledger: Ledger,
) -> None:
    status, bound = manifest.status, manifest.bound
    if status == "feasible":
        return
    ledger.expect(
        "status",
        status in ("proven_optimal", "solver_claimed"),
        f"status: {status!r} cannot be said of a plan that exists",
    )
    closed = bound is not None and value <= Fraction(bound.value) * TOLERANCE
    ledger.expect(
        "status",
        closed or status not in ("proven_optimal", "solver_claimed"),
        f"status: {status!r} needs a bound that the objective reaches",
    )
    if status != "proven_optimal" or bound is None:
        return
    ledger.expect(
        "status",
        certified is not None and value <= certified * TOLERANCE,
        "status: proven_optimal needs a certificate that proves the bound again; "
        + (
            "this one cannot be checked"
            if certified is None
            else f"this one proves {float(certified)}"
        ),
    )


def _check_caps(
    setting: Setting, counted: Sequence[LayerFigures], ledger: Ledger
) -> None:
    """Caps hold per layer on the planning part (rule 26)."""
    layers = zip(setting.manifest.layers, counted, strict=True)
    for at, (layer, found) in enumerate(layers):
        of_gpu, of_domain = _caps_at(setting, at)
        for name, cap, reached in (
            ("GPU", of_gpu, figures.imbalance(found)),
            ("domain", of_domain, figures.domain_imbalance(found, setting.layout)),
        ):
            if cap is not None:
                ledger.expect(
                    "imbalance caps",
                    reached <= cap * TOLERANCE,
                    f"layer {layer.layer}: imbalance per {name} is "
                    f"{float(reached)}, the cap is {float(cap)}",
                )


def _caps_at(setting: Setting, layer: int) -> tuple[Fraction | None, Fraction | None]:
    """Return the caps of GPUs and domains in a layer, relative ones multiplied."""
    caps = setting.manifest.caps
    found: list[Fraction | None] = []
    for cap, lowest in (
        (caps.gpu, caps.gpu_lowest),
        (caps.domain, caps.domain_lowest),
    ):
        unit = Fraction(lowest[setting.name][layer]) if lowest else Fraction(1)
        found.append(None if cap is None else Fraction(str(cap)) * unit)
    return found[0], found[1]


def _check_workloads(
    counted: Counted, tokens: Sequence[Fraction], ledger: Ledger
) -> None:
    """What is said of each workload; their weights sum to 1 (rule 25)."""
    manifest = counted[0][0].manifest
    objective = manifest.objective
    ledger.equal("workloads", "traffic", manifest.traffic, counted[0][0].traffic)
    weights = sum((setting.weight for setting, _ in counted), Fraction(0))
    ledger.expect("workloads", weights == 1, "inputs.traces: weights must sum to 1")
    for pair, count in zip(counted, tokens, strict=True):
        setting = pair[0]
        where, claimed = f"workloads.{setting.name}", manifest.workloads[setting.name]
        value = joint_values([pair], [count])[objective.name][objective.layers]
        weight = exact_text(setting.weight)
        for name, said, found in (
            ("traffic", claimed.traffic, setting.traffic),
            ("weight", claimed.weight, weight),
            ("tokens", claimed.tokens, float(count)),
            ("objective", claimed.objective, float(value)),
        ):
            ledger.equal("workloads", f"{where}.{name}", said, found)
