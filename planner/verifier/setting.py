"""Everything a manifest names, read again and put in order for counting."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from planner.errors import VerificationError
from planner.layout import ParallelLayout
from planner.manifest import Manifest
from planner.topology.graph import ClusterTopology
from planner.topology.paths import Routes
from planner.verifier.inputs import (
    NO_OVERRIDES,
    Overrides,
    Parts,
    check_digests,
    model_of,
    parts_of,
    routes_of,
    topology_of,
)
from planner.verifier.ledger import Ledger
from planner.verifier.options import RecordedOptions, recorded_options
from planner.verifier.structure import check_options, check_structure
from planner.witness.figures import message_bytes
from planner.workload.model_spec import MoEModelSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """The inputs of a manifest as one of its workloads sees them.

    Attributes
    ----------
    name, traffic, endpoint, weight
        Of the workload (rule 25).
    model
        At the precision in force.
    message
        Bytes of one dispatch and one combine transfer.
    parts
        Planning and held-out part, split again.
    """

    manifest: Manifest
    name: str
    traffic: str
    endpoint: str
    weight: Fraction
    options: RecordedOptions
    topology: ClusterTopology
    routes: Routes
    model: MoEModelSpec
    layout: ParallelLayout
    message: tuple[int, int]
    parts: Parts


def settings_of(
    manifest: Manifest,
    folder: Path,
    overrides: Overrides = NO_OVERRIDES,
    ledger: Ledger | None = None,
) -> tuple[Setting, ...]:
    """Read the inputs of a manifest and see that its slots and groups make a plan.

    Returns one setting per workload, in the order of the traces.

    Parameters
    ----------
    folder
        The manifest's folder: recorded paths are relative to it.
    ledger
        Where the comparisons are counted; none of them is kept without one.

    Raises
    ------
    ManifestError
        An input is missing, has another digest, or does not fit the others.
    VerificationError
        Slots or groups break a rule.
    """
    ledger = ledger or Ledger()
    ledger.made("digests of inputs", check_digests(manifest, folder, overrides))
    topology = topology_of(manifest, folder, overrides)
    model = model_of(manifest, folder)
    check_options(manifest, ledger)
    check_structure(manifest, topology, model, ledger)
    ledger.raise_findings()
    options = recorded_options(manifest)
    layout, routes = _layout(manifest, topology), routes_of(manifest, topology)
    settings = []
    for index, name in enumerate(workload_names(manifest)):
        trace, workload = manifest.inputs.traces[index], manifest.workloads[name]
        settings.append(
            Setting(
                manifest=manifest,
                name=name,
                traffic=trace.traffic,
                endpoint=workload.endpoint or manifest.endpoint,
                weight=Fraction(trace.weight),
                options=options,
                topology=topology,
                routes=routes,
                model=replace(model, precision=options.precision or model.precision),
                layout=layout,
                message=options.message_bytes or message_bytes(model, trace.traffic),
                parts=parts_of(manifest, folder, layout, model, overrides, index),
            )
        )
    return tuple(settings)


def workload_names(manifest: Manifest) -> list[str]:
    """Return the key in ``workloads`` of every trace.

    It is the trace's workload or name, numbered where one comes twice.

    Raises
    ------
    VerificationError
        If ``workloads`` has other keys.
    """
    names = [trace.workload or trace.name for trace in manifest.inputs.traces]
    keys = [
        name if names.count(name) == 1 else f"{name}:{names[:at].count(name) + 1}"
        for at, name in enumerate(names)
    ]
    if len(keys) == 1 and len(manifest.workloads) == 1:
        return list(manifest.workloads)
    if set(keys) != set(manifest.workloads):
        raise VerificationError(
            [
                "workloads: one per trace is needed, under its workload or name: "
                f"{keys}, not {sorted(manifest.workloads)}"
            ]
        )
    return keys


def _layout(manifest: Manifest, topology: ClusterTopology) -> ParallelLayout:
    place = {gpu: index for index, gpu in enumerate(manifest.gpus)}
    return ParallelLayout(
        domain_G=np.asarray(topology.domain_G),
        ep=manifest.groups.ep,
        attention_groups=tuple(
            tuple(place[gpu] for gpu in group.gpus)
            for group in manifest.groups.attention
        ),
    )
