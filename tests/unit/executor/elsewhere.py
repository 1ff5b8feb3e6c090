"""A device beside the CPU for tests where there is none.

Inside ``elsewhere()`` the device ``ELSEWHERE`` holds values: tensors on it compute as
those on the CPU do, but as with CUDA they refuse to meet tensors of the CPU, and
NumPy refuses to see them. A tensor made on the wrong device is then an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# The one device of torch that every build has besides the CPU.
ELSEWHERE = torch.device("meta")


class There(torch.Tensor):
    """A tensor that says it is elsewhere; ``here`` has its values."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "There":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=ELSEWHERE,
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.here.tolist()

    def item(self) -> Any:
        return self.here.item()

    def __bool__(self) -> bool:
        return bool(self.here)

    def __int__(self) -> int:
        return int(self.here)

    def __float__(self) -> float:
        return float(self.here)


class _Making(TorchDispatchMode):
    """Sees what has no tensor among its arguments as well."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


class _Spelling(TorchFunctionMode):
    """``torch.tensor`` alone is not dispatched."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        return func(*args, **kwargs)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = [isinstance(x, There) for x in given]
    # A number that the CPU has as a tensor may meet any device; an index may not.
    alone = [x.dim() == 0 and "index" not in str(func) for x in given]
    if func is torch.ops.aten.copy_.default:
        alone = [True] * len(given)
    if any(there) and not all(t or a for t, a in zip(there, alone, strict=True)):
        raise RuntimeError(f"{func}: tensors here and elsewhere")
    goal = kwargs.get("device")
    if goal is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        moved = torch.device(goal).type == ELSEWHERE.type
    else:
        moved = any(there)
    args, kwargs = tree_map(
        lambda x: x.here if isinstance(x, There) else x, (args, kwargs)
    )
    result = func(*args, **kwargs)
    own = {id(x.here): x for x in given if isinstance(x, There)}

    def back(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not moved:
            return x
        return own.get(id(x)) or There(x)

    with torch.utils._python_dispatch._disable_current_modes():
        return tree_map(lambda x: own[id(x)] if id(x) in own else back(x), result)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Let ``ELSEWHERE`` hold values."""
    with _Spelling(), _Making():
        yield ELSEWHERE
