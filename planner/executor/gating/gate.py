"""What a router does with its logits, as a checked description without torch."""

import math
from dataclasses import dataclass

from planner.errors import ModelError

SCORES = ("softmax", "sigmoid", "softmax_of_chosen")
GROUP_SCORES = ("best", "best_two")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """How the logits of a token become its experts and their gates.

    Experts are chosen by *selection scores*: their scores plus a bias, where a
    layer has one. Gates are made of the scores without the bias, so that a bias
    moves load and never weighs an expert (DeepSeek-V3, arXiv:2412.19437 §2.1.2).

    Attributes
    ----------
    experts, top_k
        E and K.
    scores
        ``softmax`` over all experts (DeepSeek-V2, Qwen), ``sigmoid`` of each logit
        (DeepSeek-V3), or ``softmax_of_chosen``: chosen by logit, then a softmax over
        the logits of the chosen (Mixtral), whose gates sum to 1 as they are.
    groups, kept_groups
        Experts form ``groups`` runs of equal size in order of id; a token chooses
        within its ``kept_groups`` best. 1 and 1: no groups.
    group_score
        A group counts as much as its ``best`` selection score (DeepSeek-V2,
        ``group_limited_greedy``) or as its ``best_two`` added (DeepSeek-V3,
        ``noaux_tc``).
    normalise
        Whether the scores of the chosen are divided by their sum.
    scale
        Factor of all gates, after normalising (``routed_scaling_factor``).
    """

    experts: int
    top_k: int
    scores: str = "softmax"
    groups: int = 1
    kept_groups: int = 1
    group_score: str = "best"
    normalise: bool = True
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("experts", "top_k", "groups", "kept_groups"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ModelError("must be an integer >= 1", where=name, value=value)
        for name, known in (("scores", SCORES), ("group_score", GROUP_SCORES)):
            value = getattr(self, name)
            if value not in known:
                raise ModelError(
                    f"must be one of {', '.join(known)}", where=name, value=value
                )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ModelError("must be finite and > 0", where="scale", value=self.scale)
        self._check_groups()

    @property
    def group_size(self) -> int:
        """Experts of one group."""
        return self.experts // self.groups

    def _check_groups(self) -> None:
        if self.experts % self.groups:
            raise ModelError(
                f"must divide the {self.experts} experts",
                where="groups",
                value=self.groups,
            )
        if self.kept_groups > self.groups:
            raise ModelError(
                f"must not exceed the {self.groups} groups",
                where="kept_groups",
                value=self.kept_groups,
            )
        reachable = self.kept_groups * self.group_size
        if self.top_k > reachable:
            raise ModelError(
                f"must not exceed the {reachable} experts of the groups kept",
                where="top_k",
                value=self.top_k,
            )
        if self.group_score == "best_two" and self.group_size < 2:
            raise ModelError(
                "needs groups of at least two experts",
                where="group_score",
                value=self.group_score,
            )
