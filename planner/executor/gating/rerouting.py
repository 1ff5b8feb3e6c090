"""Choices changed on purpose, by biases or by capacity; without torch."""

from dataclasses import dataclass

from planner.arrays import BoolArray, FloatArray, IdArray
from planner.executor.gating.capacity import Dropped, limited


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputChange:
    """What other choices did to what the model says.

    Attributes
    ----------
    kl
        Mean over tokens of KL(before || after) of the next token's odds, in nats.
    perplexity_before, perplexity_after
        Of the text itself, over the tokens that another one follows.
    """

    kl: float
    perplexity_before: float
    perplexity_after: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rerouting:
    """The choices of a part, decided before anything moves.

    Attributes
    ----------
    wanted_LTK
        Experts that tokens choose with the biases added.
    kept_LTK
        Those with room; -1 for the others, which nothing takes the place of.
    newcomer_LTK, newcomers
        Which of the wanted are there only because of the biases, and what their
        gates are multiplied by; None: gates are as they are.
    bias_LE
        What was added to the model's own biases; None where routing is forced.
    outputs
        None where routing is forced.
    """

    wanted_LTK: IdArray
    kept_LTK: IdArray
    newcomer_LTK: BoolArray | None = None
    newcomers: float = 1.0
    bias_LE: FloatArray | None = None
    outputs: OutputChange | None = None

    @property
    def dropped(self) -> Dropped:
        """What did not find room."""
        return Dropped.between(self.wanted_LTK, self.kept_LTK)


def reroute_forced(
    experts_LTK: IdArray, experts: int, capacity_factor: float
) -> Rerouting:
    """Limit the experts of a trace."""
    return Rerouting(
        wanted_LTK=experts_LTK,
        kept_LTK=limited(experts_LTK, experts, capacity_factor),
    )
