"""Finds the inputs a manifest names, refuses others, and reads them again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from planner import bundled
from planner.errors import ManifestError, UsageError
from planner.layout import ParallelLayout
from planner.manifest import Manifest, digest_of_file, digest_of_json
from planner.manifest.schema import InputFile
from planner.topology.graph import ClusterTopology
from planner.topology.paths import Routes, build_routes
from planner.topology.schema import load_topology
from planner.verifier.options import recorded_options
from planner.workload.counts import inline_counts
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import Part
from planner.workload.presets import load_model
from planner.workload.split import HomesReport, split_parts
from planner.workload.tokens import RoutingTrace, require_router_order
from planner.workload.trace import Trace, load_trace

Content = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Where to find inputs that moved; their digests must still agree."""

    topology: Path | None = None
    trace: Path | None = None


NO_OVERRIDES = Overrides()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """The scored parts of the trace and how its tokens were homed."""

    planning: Part
    holdout: Part | None
    homes: HomesReport


def check_digests(
    manifest: Manifest, folder: Path, overrides: Overrides = NO_OVERRIDES
) -> int:
    """Refuse inputs that are missing or not those the plan was made from.

    Parameters
    ----------
    folder
        The manifest's folder: recorded paths are relative to it.

    Returns
    -------
    int
        How many digests were compared.

    Raises
    ------
    ManifestError
        Naming the input and both digests.
    """
    inputs = manifest.inputs
    topology = topology_place(manifest, folder, overrides)
    compared = [
        ("/inputs/topology", inputs.topology.sha256, _digest(topology)),
        ("/inputs/model", inputs.model.sha256, _model_digest(manifest, folder)),
        (
            "/inputs/options",
            inputs.options.sha256,
            digest_of_json(inputs.options.values),
        ),
    ]
    for index, trace in enumerate(inputs.traces):
        place = trace_place(manifest, folder, index, overrides)
        compared.append((f"/inputs/traces/{index}", trace.sha256, _digest(place)))
    for where, claimed, found in compared:
        if claimed != found:
            raise ManifestError(
                f"the plan was made from {claimed[:12]}…, this is {found[:12]}…",
                where=f"{where}/sha256",
                fix="give the input the plan was made from, or plan again",
            )
    return len(compared)


def topology_place(
    manifest: Manifest, folder: Path, overrides: Overrides = NO_OVERRIDES
) -> Path | Content:
    """Return the file or the content of the topology."""
    item = manifest.inputs.topology
    named = {name: bundled.topology_path(name) for name in bundled.topology_names()}
    return overrides.topology or _place(item, folder, named, "/inputs/topology")


def trace_place(
    manifest: Manifest,
    folder: Path,
    index: int = 0,
    overrides: Overrides = NO_OVERRIDES,
) -> Path | Content:
    """Return the file or the content of a trace."""
    item = manifest.inputs.traces[index]
    where = f"/inputs/traces/{index}"
    return overrides.trace or _place(item, folder, bundled.traces(), where)


def topology_of(
    manifest: Manifest, folder: Path, overrides: Overrides = NO_OVERRIDES
) -> ClusterTopology:
    """Return the cluster a manifest was planned for, read again."""
    place = topology_place(manifest, folder, overrides)
    return load_topology(place, where="/inputs/topology/content")


def model_of(manifest: Manifest, folder: Path) -> MoEModelSpec:
    """Return the model a manifest was planned for, read again."""
    item = manifest.inputs.model
    if item.content is not None:
        return load_model(item.content)
    return load_model(folder / item.path if item.path else item.name)


def routes_of(manifest: Manifest, topology: ClusterTopology) -> Routes:
    """Return the routes of the recorded policy, built again."""
    try:
        return build_routes(topology, manifest.routing)
    except UsageError as error:
        raise ManifestError(str(error), where="/routing", fix="plan again") from error


def parts_of(
    manifest: Manifest,
    folder: Path,
    layout: ParallelLayout,
    model: MoEModelSpec,
    overrides: Overrides = NO_OVERRIDES,
    index: int = 0,
) -> Parts:
    """Return the scored parts of a trace, split again by the recorded options.

    Raises
    ------
    ManifestError
        For a trace of another model, or options that no rule knows.
    """
    options, item = recorded_options(manifest), manifest.inputs.traces[index]
    place = trace_place(manifest, folder, index, overrides)
    trace: Trace
    if isinstance(place, Path):
        trace = load_trace(place, workload=item.workload)
    else:
        trace = inline_counts(place)
    facts = (trace.num_experts, trace.top_k, trace.layer_numbers)
    if facts != (model.experts, model.top_k, model.moe_layers):
        raise ManifestError(
            "is a trace of another model than /inputs/model",
            where=f"/inputs/traces/{index}",
            value=f"{facts[0]} experts, top-{facts[1]}, {len(facts[2])} layers",
            fix="plan again",
        )
    if item.traffic == "direct":
        if not isinstance(trace, RoutingTrace):
            raise ManifestError(
                "follows tokens from layer to layer: a counts table has none",
                where=f"/inputs/traces/{index}/traffic",
                value=item.traffic,
            )
        require_router_order(trace, item.traffic)
    try:
        planning, holdout, homes = split_parts(
            trace, layout, manifest.homes, options.holdout, item.phase or options.phase
        )
    except UsageError as error:
        raise ManifestError(
            f"cannot split the trace again: {error}",
            where="/inputs/options/values",
            fix="plan again",
        ) from error
    return Parts(planning=planning, holdout=holdout, homes=homes)


def _place(
    item: InputFile, folder: Path, named: Mapping[str, Path], where: str
) -> Path | Content:
    if item.content is not None:
        return item.content
    if item.path is not None:
        return folder / item.path
    if item.name not in named:
        raise ManifestError(
            "has no path and does not ship with this planner",
            where=where,
            value=item.name,
            fix="use the planner version the plan was made with",
        )
    return named[item.name]


def _digest(place: Path | Content) -> str:
    if isinstance(place, Path):
        return digest_of_file(place)
    return digest_of_json(dict(place))


def _model_digest(manifest: Manifest, folder: Path) -> str:
    """A preset is digested by its sizes: a planner with others is another input."""
    item = manifest.inputs.model
    if item.content is not None:
        return digest_of_json(item.content)
    if item.path is not None:
        return digest_of_file(folder / item.path)
    return digest_of_json(asdict(load_model(item.name)))
