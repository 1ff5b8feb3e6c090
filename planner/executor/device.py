"""Which device a back end computes on."""

import torch

from planner.errors import UsageError

DEVICES = ("cpu", "cuda")


def device_named(name: str) -> torch.device:
    """Return a device of this machine.

    Raises
    ------
    UsageError
        If there is no such device.
    """
    if name not in DEVICES:
        raise UsageError(f"--device {name!r}: choose from {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        built = "finds no GPU" if torch.version.cuda else "is built without CUDA"
        raise UsageError(
            f"--device cuda: torch {torch.__version__} {built} here; take --device cpu"
        )
    # With an index, so that it equals the device that tensors name.
    return torch.device(name, torch.cuda.current_device() if name == "cuda" else None)
