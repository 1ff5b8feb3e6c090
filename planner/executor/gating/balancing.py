"""Dynamic balancing: the bias of every expert follows its load; without torch.

The load over a window of steps is looked at after every step, and the selection
biases of the next step are moved against it. A bias chooses and never weighs, so
what changes is which experts a token meets, not how they count.
"""

import math
from collections import deque
from dataclasses import dataclass, fields

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.errors import UsageError

RULES = ("prices", "sign", "proportional")


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How biases follow loads.

    A *relative load* is an expert's load over the mean of its layer.

    Attributes
    ----------
    rule
        ``prices``: the bias is minus a price, which rises by ``step`` times what the
        relative load is above ``target``, falls where it is below, and is never
        negative. That is dual ascent on the limit ``load <= target * mean``: experts
        that are not full keep the bias 0, and among all choices that keep the limit
        the prices lead to one of greatest total score.
        ``sign``: the bias moves by ``step`` towards an equal load, whatever the
        distance (DeepSeek-V3, arXiv:2412.19437 §2.1.2). ``proportional``: by
        ``step`` times one less the relative load.
    step
        How far a bias moves, in units of the selection score.
    target
        Relative load that ``prices`` allows; the others aim at 1.
    bound
        Greatest bias to either side.
    window
        Steps whose loads are added up.
    steps
        Steps that are taken; the bias then stays.
    newcomers
        What the gate of a *newcomer* is multiplied by: of an expert that a token
        would not have chosen without the bias. At 1 a bias never weighs; below,
        experts that stand in for better ones count less, and outputs stay closer to
        what they were. The other gates stay as they are.
    """

    rule: str = "prices"
    step: float = 0.03
    target: float = 1.15
    bound: float = 1.0
    window: int = 4
    steps: int = 100
    newcomers: float = 1.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise _refused("rule", self.rule, f"must be one of {', '.join(RULES)}")
        for name in ("step", "bound"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise _refused(name, value, "must be finite and > 0")
        if not (math.isfinite(self.target) and self.target >= 1):
            raise _refused("target", self.target, "must be finite and >= 1")
        if not 0 < self.newcomers <= 1:
            raise _refused("newcomers", self.newcomers, "must be > 0 and <= 1")
        for name in ("window", "steps"):
            if getattr(self, name) < 1:
                raise _refused(name, getattr(self, name), "must be >= 1")

    @classmethod
    def parse(cls, text: str) -> "Balance":
        """Read ``rule=sign,step=0.01``; what is not named has its default.

        Raises
        ------
        UsageError
            For a name or value that does not exist; ``default`` alone names nothing.
        """
        if text.strip() == "default":
            return cls()
        kinds = {"rule": str, "window": int, "steps": int}
        known = [field.name for field in fields(cls)]
        values = {}
        for pair in text.split(","):
            name, equals, value = (word.strip() for word in pair.partition("="))
            if name not in known or not equals or name in values:
                raise UsageError(
                    f"--balance {pair.strip()!r}: write NAME=VALUE once each, of "
                    f"{', '.join(known)}; or default"
                )
            try:
                values[name] = kinds.get(name, float)(value)
            except ValueError:
                kind = "an integer" if name in kinds else "a number"
                raise _refused(name, value, f"must be {kind}") from None
        return cls(**values)


class DynamicBalance:
    """Biases of one layer or more, moved after every step.

    Parameters
    ----------
    shape
        Of the loads and biases: the last axis is the experts'.
    """

    def __init__(self, balance: Balance, shape: tuple[int, ...]) -> None:
        self.balance = balance
        self.bias_LE: FloatArray = np.zeros(shape)
        self._seen: deque[IntArray] = deque(maxlen=balance.window)

    @property
    def load_LE(self) -> IntArray:
        """Loads added up over the window."""
        total: IntArray = np.sum(self._seen, axis=0, dtype=np.int64)
        return total

    def observe(self, load_LE: IntArray) -> FloatArray:
        """Take in the loads of a step and return the biases of the next one."""
        self._seen.append(load_LE)
        above_LE = relative(self.load_LE) - 1
        step, bound = self.balance.step, self.balance.bound
        if self.balance.rule == "prices":
            moved = self.bias_LE - step * (above_LE - (self.balance.target - 1))
            self.bias_LE = moved.clip(-bound, 0)
        else:
            if self.balance.rule == "sign":
                above_LE = np.sign(above_LE)
            self.bias_LE = (self.bias_LE - step * above_LE).clip(-bound, bound)
        return self.bias_LE


def relative(load_LE: IntArray) -> FloatArray:
    """Return loads over the mean of their layer; 1 where nothing was routed."""
    mean = load_LE.mean(axis=-1, keepdims=True)
    found: FloatArray = np.where(mean > 0, load_LE / np.where(mean > 0, mean, 1), 1.0)
    return found


def _refused(name: str, value: object, rule: str) -> UsageError:
    return UsageError(f"--balance {name}={value}: {rule}")
