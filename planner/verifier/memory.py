"""Memory: the bytes of every GPU again, and whether they fit."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from planner.arrays import IntArray
from planner.verifier.ledger import Ledger
from planner.verifier.setting import Setting
from planner.witness.context import context_bytes
from planner.witness.memory import memory_of_gpus


def check_memory(settings: Sequence[Setting], ledger: Ledger) -> None:
    """Compare needs and limits per GPU, and see that everything fits.

    The buffers must do for every workload: the largest need counts.
    """
    manifest = settings[0].manifest
    bills = [_bill(setting) for setting in settings]
    needs_G = np.max([needs for needs, _ in bills], axis=0)
    limit_G = bills[0][1]
    for index, gpu in enumerate(manifest.prediction.gpus):
        where = f"prediction.gpus {gpu.gpu}"
        ledger.equal(
            "memory", f"{where} memory_bytes", gpu.memory_bytes, int(needs_G[index])
        )
        ledger.equal(
            "memory",
            f"{where} memory_limit_bytes",
            gpu.memory_limit_bytes,
            int(limit_G[index]),
        )
        ledger.expect(
            "memory",
            int(needs_G[index]) <= int(limit_G[index]),
            f"{where}: needs {needs_G[index]} bytes and has {limit_G[index]}",
        )
        ledger.equal("GPUs in EP order", where, gpu.gpu, manifest.gpus[index])


def check_context(setting: Setting, tokens: Fraction, ledger: Ledger) -> None:
    """Compare what replicated context costs; only traffic ``direct`` has it."""
    manifest, where = setting.manifest, f"workloads.{setting.name}.context"
    claimed = manifest.workloads[setting.name].context
    ledger.expect(
        "context",
        (claimed is not None) == (setting.traffic == "direct"),
        f"{where}: belongs to traffic direct, and to no other",
    )
    if claimed is None:
        return
    found = context_bytes(
        setting.model, setting.layout, int(tokens), setting.options.kv_tokens
    )
    for name, value in found.items():
        ledger.equal("context", f"{where}.{name}", getattr(claimed, name), value)
    over = max(
        gpu.memory_bytes + found["memory_bytes"] - gpu.memory_limit_bytes
        for gpu in manifest.prediction.gpus
    )
    ledger.equal(
        "context", f"{where}.missing_bytes", claimed.missing_bytes, max(0, over)
    )


def _bill(setting: Setting) -> tuple[IntArray, IntArray]:
    manifest, options = setting.manifest, setting.options
    slots = [len(layer.slots[0]) for layer in manifest.layers]
    physical = None
    if options.single:
        slots, physical = [1], setting.model.experts
    return memory_of_gpus(
        setting.model,
        setting.topology,
        setting.layout,
        slots_per_layer=slots,
        physical=physical,
        traffic=setting.traffic,
        message=setting.message,
        batch_tokens=options.batch_tokens,
        kv_tokens=options.kv_tokens,
        mem_fraction=options.mem_fraction,
    )
