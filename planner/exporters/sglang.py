"""SGLang: the exact map of ``--init-expert-location`` (read at version 0.5.23).

The file is one JSON object with the single key ``physical_to_logical_map``: any
other key makes SGLang's loader fail. It has one row per hidden layer, dense layers
included (their rows must exist and are ignored), and slots of EP rank r are the
r-th block of a row.
"""

import json
import shlex
from pathlib import Path

from planner.errors import UsageError
from planner.exporters.base import EXPORTERS, ExportResult, refuse_unloadable
from planner.manifest import Manifest, write_text_atomically
from planner.topology.graph import ClusterTopology
from planner.workload.model_spec import MoEModelSpec

FILE_NAME = "sglang-expert-location.json"
DISPATCH = {"nearest": "static", "even": "dynamic", "weighted": "dynamic"}
BACKEND = {
    "copies": "DeepEP low-latency (decode)",
    "dedup_gpu": "an all-to-all that sends a token once per GPU",
    "dedup_domain": "DeepEP normal (prefill)",
}


@EXPORTERS.register("sglang")
def export(
    manifest: Manifest,
    out_dir: Path,
    model: MoEModelSpec,
    topology: ClusterTopology | None = None,
) -> ExportResult:
    """Write the map SGLang starts from.

    Raises
    ------
    ManifestError
        If SGLang could not load the plan, or the folder cannot be written.
    UsageError
        If the plan splits tokens by weights, which SGLang cannot be told.
    """
    refuse_unloadable(manifest, model)
    if any(layer.split for layer in manifest.layers):
        raise UsageError(
            "SGLang takes no weights per copy: plan with --selection nearest or even"
        )
    rows = physical_to_logical(manifest, model)
    redundant = len(rows[0]) - model.experts
    path = out_dir / FILE_NAME
    out_dir.mkdir(parents=True, exist_ok=True)
    write_text_atomically(_one_row_per_line(rows), path)
    flags = [
        f"--ep-size {manifest.groups.ep}",
        f"--ep-num-redundant-experts {redundant}",
        f"--init-expert-location {shlex.quote(str(path))}",
        f"--ep-dispatch-algorithm {DISPATCH[manifest.selection]}",
    ]
    notes = _notes(manifest, redundant)
    if topology is None:
        notes.append("start it with --nnodes N, N hosts of equally many GPUs")
    else:
        nodes = len({gpu.host for gpu in topology.gpus[: manifest.groups.ep]})
        flags.append(f"--nnodes {nodes}")
        if redundant and manifest.selection == "nearest":
            notes.append(_node_note(topology, manifest.groups.ep, nodes))
    return ExportResult(files=(path,), launch_flags=" ".join(flags), notes=tuple(notes))


def physical_to_logical(manifest: Manifest, model: MoEModelSpec) -> list[list[int]]:
    """Return one row of logical ids per hidden layer of the model.

    Dense layers get SGLang's own trivial row: slot p holds expert p mod E.
    """
    planned = {
        layer.layer: [expert for slots in layer.slots for expert in slots]
        for layer in manifest.layers
    }
    slots = len(planned[model.moe_layers[0]])
    trivial = [slot % model.experts for slot in range(slots)]
    return [planned.get(number, trivial) for number in range(model.layers)]


def _one_row_per_line(rows: list[list[int]]) -> str:
    body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return f'{{"physical_to_logical_map": [\n{body}\n]}}\n'


def _notes(manifest: Manifest, redundant: int) -> list[str]:
    ep, replicas = manifest.groups.ep, manifest.groups.replicas
    notes = [
        f"EP rank r must be GPU r of the plan, from {manifest.gpus[0]} to "
        f"{manifest.gpus[ep - 1]}: the file holds no GPU names",
        f"the plan counts traffic of {BACKEND[manifest.traffic]}",
    ]
    if replicas > 1:
        notes.append(
            f"{replicas} EP sets of {ep} GPUs: start one engine per set, each with "
            "this file"
        )
    if redundant and manifest.selection != "nearest":
        notes.append(
            "the plan spreads tokens evenly over copies; SGLang's dynamic does so "
            "only where every copy is equally near: with an all-to-all backend each "
            "rank first keeps its nearest copies"
        )
    return notes


def _node_note(topology: ClusterTopology, ep: int, nodes: int) -> str:
    """Whether SGLang's nodes (ep/nnodes GPUs each) are the plan's domains."""
    domains = [int(domain) for domain in topology.domain_G[:ep]]
    width = ep // nodes
    blocks = [set(domains[start : start + width]) for start in range(0, ep, width)]
    alike = all(len(block) == 1 for block in blocks)
    if ep % nodes == 0 and alike and len(blocks) == len(set(domains)):
        return (
            "where no copy, or every copy, is near, SGLang draws the copy at random "
            "(seed 42); the plan deals copies in turn, so such loads differ a little"
        )
    return (
        f"SGLang takes {nodes} hosts for nodes, the plan's {len(set(domains))} "
        "scale-up domains are not those: it will not always use the nearest copy"
    )
