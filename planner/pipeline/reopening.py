"""From a manifest back to the problem it was made from, and its plan."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from planner.manifest import Manifest, read_manifest
from planner.manifest.schema import InputFile, TraceInput
from planner.options import SolveOptions
from planner.pipeline.evaluating import plan_of
from planner.pipeline.problem import Problem, Sources, TraceLike, build_problem
from planner.pipeline.resolve import FREE
from planner.pipeline.sources import Source
from planner.pipeline.verifying import check_inputs
from planner.plan import PlacementPlan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reopened:
    """A plan with the problem it solves."""

    manifest: Manifest
    problem: Problem
    plan: PlacementPlan


def reopen(path: str | Path) -> Reopened:
    """Read a manifest and rebuild its problem from the inputs it names.

    Raises
    ------
    ManifestError
        If it does not fit its schema, or an input is missing or another one.
    """
    place = Path(path)
    manifest = read_manifest(place)
    folder = place.parent
    check_inputs(manifest, folder)
    plan = plan_of(manifest)
    inputs = manifest.inputs
    free = inputs.options.values.get("policy") == FREE
    problem = build_problem(
        Sources(
            topology=_source(inputs.topology, folder),
            model=_source(inputs.model, folder),
            traces=[_trace(each, folder) for each in inputs.traces],
            base=folder,
        ),
        recorded(inputs.options.values),
        # Under policy free layers differ; the options say how many in the mean.
        slots=None if free else plan.slots_LGJ.shape[2],
        groups=[group.gpus for group in manifest.groups.attention],
    )
    instance = problem.instance
    ends = {name: load.endpoint for name, load in manifest.workloads.items()}
    workloads = tuple(
        replace(load, endpoint=ends.get(load.name) or manifest.endpoint)
        for load in instance.workloads
    )
    problem = replace(problem, instance=replace(instance, workloads=workloads))
    return Reopened(manifest=manifest, problem=problem, plan=plan)


def recorded(values: dict[str, Any]) -> SolveOptions:
    """Return the options a manifest records, as they could be given again."""
    known = {field.name for field in fields(SolveOptions)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in known
    }
    if "redundant" in given:
        given["redundant"] = str(given["redundant"])
    if given.get("mem_fraction") is not None:
        # The recorded KV cache is what the fraction left.
        given["kv_tokens"] = None
    # Each workload has its own, which the manifest names; this is the first one's.
    given["endpoint"] = None
    if given.get("homes") == "even":
        # What counts tables say: they have no homes to choose.
        given["homes"] = None
    return SolveOptions(**given)


def _source(item: InputFile, folder: Path) -> Source:
    if item.content is not None:
        return item.content
    return item.name if item.path is None else folder / item.path


def _trace(item: TraceInput, folder: Path) -> TraceLike:
    if item.content is not None:
        return item.content
    name = _source(item, folder)
    workload = f"#{item.workload}" if item.workload else ""
    return f"{name}{workload}:{item.weight}:{item.traffic}:{item.phase or ''}"
