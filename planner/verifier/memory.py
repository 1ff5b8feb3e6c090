"""Memory: the bytes of every GPU again, and whether they fit."""

from planner.verifier.ledger import Ledger
from planner.verifier.setting import Setting
from planner.witness.memory import memory_of_gpus


def check_memory(setting: Setting, ledger: Ledger) -> None:
    """Compare needs and limits per GPU, and see that everything fits."""
    manifest, options = setting.manifest, setting.options
    needs_G, limit_G = memory_of_gpus(
        setting.model,
        setting.topology,
        setting.layout,
        slots_per_layer=[len(layer.slots[0]) for layer in manifest.layers],
        traffic=manifest.traffic,
        message=setting.message,
        batch_tokens=options.batch_tokens,
        kv_tokens=options.kv_tokens,
        mem_fraction=options.mem_fraction,
    )
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
