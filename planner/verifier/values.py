"""Compares objective values and imbalance with what was counted again."""

from collections.abc import Sequence
from fractions import Fraction

from planner.manifest import exact_text
from planner.manifest.schema import ImbalanceReport, ModeValues, ObjectiveReport
from planner.verifier.ledger import Ledger
from planner.verifier.setting import Setting
from planner.witness import figures
from planner.witness.figures import LayerFigures


def check_objective(
    where: str,
    claimed: ObjectiveReport,
    setting: Setting,
    counted: Sequence[LayerFigures],
    ledger: Ledger,
) -> None:
    """Compare all nine values, the scope and the optimized value."""
    links = setting.topology.links
    found = figures.values(
        counted, links, setting.routes.q, setting.message, setting.options.link_classes
    )
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
    ledger.equal("objectives", f"{where}.unit", claimed.unit, units[claimed.name])


def check_imbalance(
    where: str,
    claimed: ImbalanceReport,
    setting: Setting,
    counted: Sequence[LayerFigures],
    ledger: Ledger,
) -> None:
    """Compare the summary of rule 26."""
    gpu = [figures.imbalance(layer) for layer in counted]
    domain = [figures.domain_imbalance(layer, setting.layout) for layer in counted]
    found = {
        "mean": sum(gpu, Fraction(0)) / len(gpu),
        "worst": max(gpu),
        "domain_mean": sum(domain, Fraction(0)) / len(domain),
        "domain_worst": max(domain),
    }
    for name, value in found.items():
        ledger.equal(
            "imbalance", f"{where}.{name}", getattr(claimed, name), float(value)
        )
