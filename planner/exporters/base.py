"""What an engine exporter is given and what it returns."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from planner.errors import ManifestError
from planner.manifest import Manifest
from planner.registry import Registry
from planner.topology.graph import ClusterTopology
from planner.workload.model_spec import MoEModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """Files written, how to launch the engine with them, and what to know."""

    files: tuple[Path, ...]
    launch_flags: str
    notes: tuple[str, ...]


class Exporter(Protocol):
    """Writes the placement file of one engine into a folder.

    Raises ManifestError for a plan that the engine cannot load; nothing is
    written then.
    """

    def __call__(
        self,
        manifest: Manifest,
        out_dir: Path,
        model: MoEModelSpec,
        topology: ClusterTopology | None = None,
    ) -> ExportResult:
        """Write the files and return their paths with the launch flags.

        Flags that depend on hosts need the topology; a note says so without it.
        """
        ...


EXPORTERS: Registry[Exporter] = Registry("engine")


def refuse_unloadable(manifest: Manifest, model: MoEModelSpec) -> None:
    """Refuse what no engine loads (rule 29).

    Raises
    ------
    ManifestError
        GPUs or layers with different numbers of slots, two copies of an expert on
        one GPU, an expert without a copy, or an id outside the model.
    """
    widths = {len(layer.slots[0]) for layer in manifest.layers if layer.slots}
    if len(widths) > 1:
        raise ManifestError(
            f"has {min(widths)} to {max(widths)} slots per GPU, and no engine loads "
            "layers of different numbers of slots",
            where="/layers",
            fix="plan with --policy uniform",
        )
    for where, fault in _faults(manifest, model):
        raise ManifestError(
            fault, where=where, fix="run planner verify, then plan with policy uniform"
        )


def _faults(manifest: Manifest, model: MoEModelSpec) -> Iterator[tuple[str, str]]:
    numbers = tuple(layer.layer for layer in manifest.layers)
    if numbers != model.moe_layers:
        yield "/layers", "must be the MoE layers of the model"
    per_gpu = len(manifest.layers[0].slots[0])
    for index, layer in enumerate(manifest.layers):
        if len(layer.slots) != manifest.groups.ep:
            yield f"/layers/{index}/slots", "must have one row per GPU of the EP set"
        held: set[int] = set()
        for rank, slots in enumerate(layer.slots):
            where = f"/layers/{index}/slots/{rank}"
            if len(slots) != per_gpu:
                yield where, f"has {len(slots)} slots where others have {per_gpu}"
            if len(set(slots)) != len(slots):
                yield where, "holds two copies of one expert"
            if any(expert >= model.experts for expert in slots):
                yield where, f"holds an id outside 0..{model.experts - 1}"
            held |= set(slots)
        missing = sorted(set(range(model.experts)) - held)
        if missing:
            yield f"/layers/{index}", f"has no copy of expert {missing[0]}"
