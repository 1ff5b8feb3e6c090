"""Write the file an engine loads."""

from pathlib import Path

from planner.errors import InputError
from planner.exporters.base import EXPORTERS, ExportResult
from planner.manifest import read_manifest
from planner.pipeline.verifying import check_inputs
from planner.verifier import model_of, topology_of


def export(plan: str | Path, *, engine: str, output: str | Path) -> ExportResult:
    """Write the placement files of ``engine`` into the folder ``output``.

    Raises
    ------
    UsageError
        If there is no such engine.
    ManifestError
        If the plan's inputs changed or the engine cannot load it.
    """
    exporter, path, folder = EXPORTERS.get(engine), Path(plan), Path(output)
    manifest = read_manifest(path)
    check_inputs(manifest, path.parent)
    if folder.exists() and not folder.is_dir():
        raise InputError("is not a folder", where=str(folder), fix="name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    model = model_of(manifest, path.parent)
    return exporter(manifest, folder, model, topology_of(manifest, path.parent))
