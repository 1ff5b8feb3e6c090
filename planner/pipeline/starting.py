"""Start a replay where it belongs: in this process, or in one process per GPU."""

from importlib.util import find_spec
from pathlib import Path

from planner.errors import UsageError
from planner.executor.precision.tolerance import TOLERANCES
from planner.pipeline.replaying import (
    PARTS,
    ReplayOptions,
    ReplayReport,
    replay_here,
)

EXECUTORS = ("auto", "local", "distributed", "counter")
GATINGS = ("auto", "real", "forced")
DEVICES = ("cpu", "cuda")


def replay(
    plan: str | Path,
    *,
    part: str = "both",
    executor: str = "auto",
    gating: str = "auto",
    precision: str = "fp32",
    device: str = "cpu",
    balance: str | None = None,
    capacity_factor: float | None = None,
    timeline: str | Path | None = None,
) -> ReplayReport:
    """Move a plan's trace and compare every GPU pair and link with the prediction.

    Parameters
    ----------
    part
        ``planning``, ``holdout`` or ``both``.
    executor
        ``local`` moves torch tensors between virtual ranks of this process,
        ``distributed`` between processes, one per GPU, which torchrun, mpirun or
        srun started, or which are started here; ``counter`` only counts. ``auto``
        takes ``local`` where torch is installed.
    gating
        ``real`` lets the bundled model's router choose, ``forced`` takes the
        trace's ids; ``auto`` takes ``real`` for the bundled trace.
    precision
        ``fp32``, ``bf16`` or ``fp8``: what rows travel as and slots hold.
    device
        ``cpu`` or ``cuda``: where tensors are moved and computed; the ranks of
        ``distributed`` take a GPU each.
    balance
        Let the biases of the model's router follow the loads of the planning part
        first: ``default``, or ``NAME=VALUE,...`` of :class:`Balance`.
    capacity_factor
        Limit every expert to this times the mean load of a batch, rounded up.
    timeline
        Folder for ``timeline.json`` (Chrome trace events) and ``timeline.svg``;
        ``distributed`` only.

    Raises
    ------
    ReplayMismatch
        If a count differs from the prediction, or an output from the unsharded
        model's by more than the precision's tolerance.
    WorldError
        If a rank of ``distributed`` is lost, or does not fit the others.
    UsageError
        For a combination that does not exist.
    """
    _check_words(part, executor, gating, precision, device)
    notes: list[str] = []
    options = ReplayOptions(
        part=part,
        executor=_executor(executor, precision, device, notes),
        gating=gating,
        precision=precision,
        device=device,
        balance=balance,
        capacity_factor=capacity_factor,
    )
    if options.executor == "distributed":
        # torch is an extra: what starts ranks must not be needed without it.
        from planner.pipeline.ranks import replay_between

        return replay_between(Path(plan), options, timeline)
    if timeline is not None:
        raise UsageError("--timeline needs --executor distributed: rows must travel")
    return replay_here(Path(plan), options, notes)


def _check_words(
    part: str, executor: str, gating: str, precision: str, device: str
) -> None:
    for name, value, known in (
        ("part", part, PARTS),
        ("executor", executor, EXECUTORS),
        ("gating", gating, GATINGS),
        ("precision", precision, tuple(TOLERANCES)),
        ("device", device, DEVICES),
    ):
        if value not in known:
            raise UsageError(f"--{name} {value!r}: choose from {', '.join(known)}")


def _executor(wanted: str, precision: str, device: str, notes: list[str]) -> str:
    has_torch = find_spec("torch") is not None
    if wanted in ("local", "distributed") and not has_torch:
        raise UsageError(
            f"--executor {wanted} needs torch: pip install "
            "'moe-placement-planner[executor]', or use --executor counter"
        )
    for name, value, usual in (
        ("precision", precision, "fp32"),
        ("device", device, "cpu"),
    ):
        if value != usual and (wanted == "counter" or not has_torch):
            raise UsageError(
                f"--{name} {value} needs tensors, and the counter has none: use "
                "--executor local, with torch (pip install "
                "'moe-placement-planner[executor]')"
            )
    if wanted != "auto":
        return wanted
    if not has_torch:
        notes.append(
            "torch is not installed: the counter replayed the rules, no tensor moved "
            "(pip install 'moe-placement-planner[executor]' to move tensors)"
        )
    return "local" if has_torch else "counter"
