"""Replay a part of a trace through a plan, with tensors or by counting alone."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planner.arrays import IntArray
from planner.errors import ReplayMismatch, UsageError
from planner.executor.counter import count
from planner.executor.gating.rerouting import Rerouting
from planner.executor.links import link_numerators
from planner.executor.result import Moved, ReplayResult
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.topology.paths import Routes
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import TokenPart

if TYPE_CHECKING:
    from planner.executor.host import Host

BACKENDS = ("counter", "local", "distributed")
GATINGS = ("forced", "real")


def replay(
    backend: str,
    gating: str,
    *,
    plan: PlacementPlan,
    part: TokenPart,
    layout: ParallelLayout,
    model_spec: MoEModelSpec,
    traffic: str,
    selection: str,
    endpoint: str,
    message_bytes: tuple[int, int],
    routes: Routes,
    weights: Path | None = None,
    token_ids: IntArray | None = None,
    seq_ids: IntArray | None = None,
    seed: int = 0,
    precision: str = "fp32",
    device: str = "cpu",
    host: "Host | None" = None,
    rerouting: Rerouting | None = None,
) -> ReplayResult:
    """Move a part's tokens through a plan and count every transfer and link.

    Parameters
    ----------
    backend
        ``local`` moves torch tensors between virtual ranks of this process,
        ``distributed`` between processes; ``counter`` counts.
    gating
        ``forced`` takes the trace's expert ids; ``real`` lets the model of
        ``weights`` route the text itself (``local`` only).
    weights
        ``.npz`` file of the model; its ``.json`` lies beside it.
    token_ids, seq_ids
        Columns of the whole trace file, one value per row; ``real`` only.
    seed
        Of hidden states, gates and expert weights under ``forced``.
    precision
        What rows travel as and slots hold: ``fp32``, ``bf16`` or ``fp8``.
    device
        ``cpu`` or ``cuda``: where ``local`` computes.
    host
        This process's rank, for ``distributed`` only.
    rerouting
        Experts of the part's tokens in place of those recorded (``forced``) or
        chosen by the model's router (``real``).

    Raises
    ------
    ReplayMismatch
        If combine is not dispatch mirrored, or a message is lost.
    VerificationError
        If a chosen expert has no copy.
    UsageError
        For a combination that does not exist.
    """
    if backend not in BACKENDS or gating not in GATINGS:
        raise UsageError(
            f"executor {backend!r} with gating {gating!r}: choose from "
            f"{', '.join(BACKENDS)} and {', '.join(GATINGS)}"
        )
    start = time.perf_counter()
    if rerouting is not None:
        part = replace(part, experts_LTK=rerouting.kept_LTK)
    if backend == "counter":
        if gating == "real":
            raise UsageError(
                "real gating runs the model: install the extra [executor] and use "
                "--executor local, or take --gating forced"
            )
        if precision != "fp32":
            raise UsageError(
                f"--precision {precision}: the counter moves no values; use "
                "--executor local"
            )
        moved = count(
            plan,
            part,
            layout=layout,
            model_spec=model_spec,
            traffic=traffic,
            selection=selection,
            endpoint=endpoint,
        )
    else:
        moved = _moved_by_torch(
            plan=plan,
            part=part,
            layout=layout,
            model_spec=model_spec,
            rules=(traffic, selection, endpoint),
            text=None if gating == "forced" else (weights, token_ids, seq_ids),
            seed=seed,
            message_bytes=message_bytes,
            precision=precision,
            device=device,
            host=host,
            rerouting=rerouting,
        )
    if traffic != "direct":
        _check_mirrored(moved)
    return ReplayResult(
        backend=backend,
        gating=gating,
        tokens=part.token_count,
        moved=moved,
        numerators_L2A=link_numerators(moved.dispatch_LGG, moved.combine_LGG, routes),
        q=routes.q,
        message_bytes=message_bytes,
        precision=precision,
        seconds=time.perf_counter() - start,
    )


def _moved_by_torch(
    *,
    plan: PlacementPlan,
    part: TokenPart,
    layout: ParallelLayout,
    model_spec: MoEModelSpec,
    rules: tuple[str, str, str],
    text: tuple[Path | None, IntArray | None, IntArray | None] | None,
    seed: int,
    message_bytes: tuple[int, int],
    precision: str,
    device: str,
    host: "Host | None",
    rerouting: Rerouting | None,
) -> Moved:
    # torch is an extra: the counter must work where it is absent.
    from planner.executor.device import device_named
    from planner.executor.forced import replay_forced
    from planner.executor.host import LocalHost
    from planner.executor.memory import held_bytes
    from planner.executor.model.weights import load_model
    from planner.executor.placement import Placement
    from planner.executor.precision.named import precision_named
    from planner.executor.text.reading import add_biases
    from planner.executor.text.run import replay_text
    from planner.executor.wire.buffers import Buffers

    traffic, selection, endpoint = rules
    host = host or LocalHost(layout.gpu_count, device_named(device))
    host.buffers = Buffers(host.ranks, message_bytes)
    placement = Placement(
        plan=plan,
        layout=layout,
        traffic=traffic,
        selection=selection,
        endpoint=endpoint,
        precision=precision_named(precision),
    )
    if text is None:
        forced: Moved = replay_forced(
            host, placement, part, model_spec=model_spec, seed=seed
        )
        return forced
    weights, token_ids, seq_ids = text
    if weights is None or token_ids is None or seq_ids is None:
        raise UsageError(
            "real gating needs the model's weights and a trace with columns token_id "
            "and seq_id: take --gating forced"
        )
    model = load_model(weights, weights.with_suffix(".json")).to(host.device)
    if rerouting is not None and rerouting.bias_LE is not None:
        add_biases(list(model.moe.values()), rerouting.bias_LE)
    moved: Moved = replay_text(
        host,
        placement,
        part,
        model=model,
        model_spec=model_spec,
        token_ids=_of_part(token_ids, part),
        seq_ids=_of_part(seq_ids, part),
        rerouting=rerouting,
    )
    return replace(moved, held=held_bytes(model))


def _of_part(column: IntArray, part: TokenPart) -> IntArray:
    """Cut a column of the whole trace to the rows of the part."""
    return np.asarray(column, dtype=np.int64)[part.row_T]


def _check_mirrored(moved: Moved) -> None:
    """Hold the combine leg against the dispatch leg, turned round (rule 21)."""
    differs = np.argwhere(moved.combine_LGG != moved.dispatch_LGG.transpose(0, 2, 1))
    if differs.size:
        layer, source, target = differs[0].tolist()
        raise ReplayMismatch(
            [
                f"layer {layer}: {moved.combine_LGG[layer, source, target]} answers "
                f"went from GPU {source} to {target}, but "
                f"{moved.dispatch_LGG[layer, target, source]} messages came"
            ]
        )
