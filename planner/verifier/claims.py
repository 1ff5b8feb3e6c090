"""Do the claims follow from the figures: bound, gap, status, caps (rules 26, 28)."""

from collections.abc import Sequence
from fractions import Fraction

from planner.manifest import Manifest
from planner.manifest.schema import BoundReport
from planner.verifier.ledger import Ledger
from planner.verifier.setting import Setting
from planner.verifier.traffic import tokens_of
from planner.witness import figures
from planner.witness.figures import LayerFigures

TOLERANCE = 1 + Fraction(1, 10**9)


def check_claims(
    setting: Setting, counted: Sequence[LayerFigures], ledger: Ledger
) -> None:
    """Check what the manifest says about its own quality.

    ``counted`` are the witness's figures of the planning part.
    """
    manifest = setting.manifest
    found = figures.values(
        counted,
        setting.topology.links,
        setting.routes.q,
        setting.message,
        setting.options.link_classes,
    )
    value = found[manifest.objective.name][manifest.objective.layers]
    _check_bound(manifest, value, ledger)
    _check_status(manifest, value, counted, ledger)
    _check_caps(setting, counted, ledger)
    _check_workloads(setting, value, ledger)


def certified_bound(
    bound: BoundReport, manifest: Manifest, counted: Sequence[LayerFigures]
) -> Fraction | None:
    """Return the bound that the certificate proves by its own closed form.

    None if there is no certificate that can be checked again. Known kinds:

    ``nothing_moves``
        Loads are never negative: proves 0 for every objective.
    ``mean_pairs``
        A maximum over GPUs is at least the mean: proves, for ``gpu_tokens``, the
        sum over layers (the largest, for ``worst_layer``) of pairs / GPUs.
    """
    kind = (bound.certificate or {}).get("kind")
    if kind == "nothing_moves":
        return Fraction(0)
    if kind == "mean_pairs" and manifest.objective.name == "gpu_tokens":
        means = [
            Fraction(int(layer.pairs_G.sum()), layer.denominator * len(layer.pairs_G))
            for layer in counted
        ]
        worst = manifest.objective.layers == "worst_layer"
        return max(means) if worst else sum(means, Fraction(0))
    return None


def _check_bound(manifest: Manifest, value: Fraction, ledger: Ledger) -> None:
    bound = manifest.bound
    if bound is None:
        ledger.expect(
            "bound and gap", manifest.gap is None, "gap: there is none without a bound"
        )
        return
    proven = Fraction(bound.value)
    ledger.expect(
        "bound and gap",
        proven <= value * TOLERANCE,
        f"bound.value: {bound.value} is above the objective {float(value)}",
    )
    gap = float((value - proven) / value) if value else 0.0
    ledger.equal("bound and gap", "gap", manifest.gap, gap)


def _check_status(
    manifest: Manifest,
    value: Fraction,
    counted: Sequence[LayerFigures],
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
        not bound.branching,
        "status: a proof that needed branching is solver_claimed, not proven_optimal",
    )
    certified = certified_bound(bound, manifest, counted)
    ledger.expect(
        "status",
        certified is not None and Fraction(bound.value) <= certified * TOLERANCE,
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
    caps = setting.manifest.caps
    for layer, found in zip(setting.manifest.layers, counted, strict=True):
        for name, cap, reached in (
            ("GPU", caps.gpu, figures.imbalance(found)),
            ("domain", caps.domain, figures.domain_imbalance(found, setting.layout)),
        ):
            if cap is not None:
                ledger.expect(
                    "imbalance caps",
                    reached <= Fraction(str(cap)) * TOLERANCE,
                    f"layer {layer.layer}: imbalance per {name} is "
                    f"{float(reached)}, the cap is {cap}",
                )


def _check_workloads(setting: Setting, value: Fraction, ledger: Ledger) -> None:
    """One workload: it is the whole objective (rule 25)."""
    manifest = setting.manifest
    ledger.expect(
        "workloads",
        len(manifest.workloads) == len(manifest.inputs.traces),
        "workloads: one per trace is needed",
    )
    for name, workload in manifest.workloads.items():
        where = f"workloads.{name}"
        tokens = float(tokens_of(setting.parts.planning))
        ledger.equal(
            "workloads", f"{where}.traffic", workload.traffic, manifest.traffic
        )
        ledger.equal("workloads", f"{where}.weight", workload.weight, "1/1")
        ledger.equal("workloads", f"{where}.tokens", workload.tokens, tokens)
        ledger.equal(
            "workloads", f"{where}.objective", workload.objective, float(value)
        )
