"""Everything that a device should do right, and how fast, in one call.

    python -m benchmarks.device --device cuda
    python -m benchmarks.device --device cpu [--small]

Counts of every traffic mode, outputs in every precision, gradients, both forms of
MLA, a world of ranks (NCCL on GPUs, gloo on the CPU), batches beside each other,
one grouped GEMM against a loop, speed and memory. A row that fails does not stop
the others; the exit code is 1 if one did.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.device_checks import CHECKS
from benchmarks.device_jobs import Device, NotHere, Wrong
from benchmarks.device_times import TIMES
from planner.errors import PlannerError
from planner.executor.device import DEVICES, device_named
from planner.executor.world.nursery import Nursery

Work = Callable[[Device], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    state
        ``ok``, ``failed``, or ``-`` where the machine lacks what it needs.
    """

    name: str
    state: str
    figure: str
    seconds: float


def rows(device: Device, works: Iterable[tuple[str, Work]]) -> Iterator[Row]:
    """Do one piece of work after the other, whatever becomes of each."""
    for name, work in works:
        start = time.perf_counter()
        try:
            state, figure = "ok", work(device)
        except NotHere as reason:
            state, figure = "-", str(reason)
        except Wrong as reason:
            state, figure = "failed", str(reason)
        except Exception as error:
            # The others are to be seen all the same: this is where a run ends.
            state, figure = "failed", f"{type(error).__name__}: {error}".strip()
        yield Row(
            name=name,
            state=state,
            figure=figure,
            seconds=time.perf_counter() - start,
        )


def facts(device: Device) -> list[tuple[str, str]]:
    """Return what the figures depend on."""
    found = [
        ("python, torch", f"{platform.python_version()}, {torch.__version__}"),
        ("processor", f"{platform.processor() or platform.machine()}, one thread"),
        ("fp32 products", torch.get_float32_matmul_precision()),
    ]
    if not device.is_cuda:
        return found
    gpu = torch.cuda.get_device_properties(device.torch)
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return [
        *found,
        ("GPU", f"{torch.cuda.device_count()} x {gpu.name}"),
        ("memory, multiprocessors", f"{gpu.total_memory / 2**30:.0f} GiB, "
         f"{gpu.multi_processor_count}"),
        ("CUDA, NCCL, capability", f"{torch.version.cuda}, {nccl}, "
         f"{gpu.major}.{gpu.minor}"),
    ]  # fmt: skip


def report(device: Device, console: Console) -> bool:
    """Print the table; return whether nothing failed."""
    for name, value in facts(device):
        console.print(f"{name}: {value}", highlight=False)
    table = Table("", "", "figure", "seconds", box=box.SIMPLE)
    right = True
    for row in rows(device, [*CHECKS, *TIMES]):
        right &= row.state != "failed"
        print(f"{row.state:6} {row.name}", file=sys.stderr)
        table.add_row(row.state, row.name, row.figure, f"{row.seconds:.1f}")
    console.print(table)
    return right


def main() -> None:
    """Print the table; exit with 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument(
        "--small", action="store_true", help="sizes that say nothing about speed"
    )
    options = parser.parse_args()
    try:
        device = Device(torch=device_named(options.device), small=options.small)
    except PlannerError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    with Nursery() as nursery:
        right = report(replace(device, nursery=nursery), Console(width=120))
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
