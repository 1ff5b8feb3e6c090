"""Compares objective values and imbalance with what was counted again."""

from collections.abc import Sequence
from fractions import Fraction

from planner.manifest import exact_text
from planner.manifest.schema import (
    ImbalanceReport,
    ModeValues,
    ObjectiveReport,
    WorkloadPart,
)
from planner.verifier.ledger import Ledger
from planner.verifier.setting import Setting
from planner.witness import figures
from planner.witness.figures import LayerFigures

Values = dict[str, dict[str, Fraction]]


Counted = Sequence[tuple[Setting, Sequence[LayerFigures]]]
"""Counts of one part by workload."""


def joint_values(counted: Counted, tokens: Sequence[Fraction]) -> Values:
    """Return all nine values; of several workloads per token and combined (rule 25)."""
    found = [
        figures.values(
            layers,
            setting.topology.links,
            setting.routes.q,
            setting.message,
            setting.options.link_classes,
            setting.topology.kinds,
        )
        for setting, layers in counted
    ]
    if len(found) == 1:
        return found[0]
    settings = [setting for setting, _ in counted]
    return {
        name: {
            mode: joint_value(
                settings, [values[name][mode] for values in found], tokens
            )
            for mode in modes
        }
        for name, modes in found[0].items()
    }


def joint_value(
    settings: Sequence[Setting], values: Sequence[Fraction], tokens: Sequence[Fraction]
) -> Fraction:
    """Return several workloads' values per token, averaged or their largest."""
    rates = [
        value / count if count else Fraction(0)
        for value, count in zip(values, tokens, strict=True)
    ]
    if settings[0].manifest.combine == "worst":
        return max(rates)
    return sum(
        (each.weight * rate for each, rate in zip(settings, rates, strict=True)),
        Fraction(0),
    )


def check_objective(
    where: str,
    claimed: ObjectiveReport,
    counted: Counted,
    tokens: Sequence[Fraction],
    ledger: Ledger,
) -> None:
    """Compare all nine values, the scope and the optimized value."""
    setting = counted[0][0]
    links = setting.topology.links
    found = joint_values(counted, tokens)
    scope = sorted(
        {link.link_class for link in figures.scope(links, setting.options.link_classes)}
    )
    ledger.equal("objectives", f"{where}.scope", list(claimed.scope), scope)
    for name, modes in found.items():
        values: ModeValues = getattr(claimed, name)
        for mode, value in modes.items():
            at = f"{where}.{name}.{mode}"
            ledger.equal("objectives", at, getattr(values, mode), float(value))
            ledger.equal(
                "objectives",
                f"{at}_exact",
                getattr(values, f"{mode}_exact"),
                exact_text(value),
            )
    value = found[claimed.name][claimed.layers]
    ledger.equal("objectives", f"{where}.value", claimed.value, float(value))
    ledger.equal(
        "objectives", f"{where}.value_exact", claimed.value_exact, exact_text(value)
    )
    units = {"link_time": "s", "link_tokens": "tokens", "gpu_tokens": "pairs"}
    unit = units[claimed.name] + ("/token" if len(counted) > 1 else "")
    ledger.equal("objectives", f"{where}.unit", claimed.unit, unit)


def check_own(
    where: str,
    claimed: WorkloadPart,
    counted: tuple[Setting, Sequence[LayerFigures]],
    tokens: Fraction,
    ledger: Ledger,
) -> None:
    """Compare one workload's own figures of a part."""
    objective = counted[0].manifest.objective
    value = joint_values([counted], [tokens])[objective.name][objective.layers]
    ledger.equal("workloads", f"{where}.tokens", claimed.tokens, float(tokens))
    ledger.equal("workloads", f"{where}.objective", claimed.objective, float(value))
    check_imbalance(f"{where}.imbalance", claimed.imbalance, [counted], ledger)


def check_imbalance(
    where: str, claimed: ImbalanceReport, counted: Counted, ledger: Ledger
) -> None:
    """Compare the summary of rule 26: over workloads the mean, and the worst."""
    summaries = [_imbalance(setting, layers) for setting, layers in counted]
    weights = [float(setting.weight) for setting, _ in counted]
    for name in ("mean", "worst", "domain_mean", "domain_worst"):
        values = [float(summary[name]) for summary in summaries]
        if "worst" in name:
            found = max(values)
        elif len(values) == 1:
            found = values[0]
        else:
            found = sum(
                weight * value for weight, value in zip(weights, values, strict=True)
            )
        ledger.equal("imbalance", f"{where}.{name}", getattr(claimed, name), found)


def _imbalance(setting: Setting, layers: Sequence[LayerFigures]) -> dict[str, Fraction]:
    gpu = [figures.imbalance(layer) for layer in layers]
    domain = [figures.domain_imbalance(layer, setting.layout) for layer in layers]
    return {
        "mean": sum(gpu, Fraction(0)) / len(gpu),
        "worst": max(gpu),
        "domain_mean": sum(domain, Fraction(0)) / len(domain),
        "domain_worst": max(domain),
    }
