"""What a checker of certificates sees of a layer, and the family's registry.

Everything is counted from the trace and the cluster, in integers and fractions;
nothing comes from the certificate but the multipliers it offers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from planner.arrays import IntArray
from planner.errors import ManifestError
from planner.layout import ParallelLayout
from planner.registry import Registry
from planner.topology.graph import ClusterTopology
from planner.topology.paths import Routes
from planner.workload.parts import CountsPart, Part

Certificate = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """One layer of the planning part and what a plan of it may use.

    Attributes
    ----------
    layer
        Index of the layer in the plan.
    slots_per_gpu
        Slots of every GPU.
    single
        Whether they are those of all layers together.
    free
        Whether another plan may give the layer more slots, or fewer.
    message
        Bytes of one dispatch and one combine transfer.
    scope
        Names of the links that count for ``link_tokens``.
    cap_gpu, cap_domain
        Imbalance caps in force, None without (rule 26).
    nested_groups
        Routing groups that each stay in one domain; 0 if none has to.
    """

    topology: ClusterTopology
    routes: Routes
    layout: ParallelLayout
    traffic: str
    selection: str
    endpoint: str
    objective: str
    experts: int
    slots_per_gpu: int
    message: tuple[int, int]
    scope: frozenset[str]
    cap_gpu: Fraction | None
    cap_domain: Fraction | None
    part: Part
    layer: int
    single: bool = False
    free: bool = False
    nested_groups: int = 0

    @property
    def slot_count(self) -> int:
        """P."""
        if self.single:
            return self.experts
        return self.slots_per_gpu * self.layout.ep

    @cached_property
    def pairs_EG(self) -> IntArray:
        """(token, expert) pairs by expert and source GPU, over ``denominator``."""
        gpus = self.layout.gpu_count
        if isinstance(self.part, CountsPart):
            tokens_E = np.asarray(self.part.tokens_LE[self.layer], dtype=np.int64)
            return np.repeat(tokens_E[:, None], gpus, axis=1)
        pairs_EG = np.zeros((self.experts, gpus), dtype=np.int64)
        for chosen_T in self.part.experts_LTK[self.layer].T:
            known = chosen_T >= 0
            np.add.at(pairs_EG, (chosen_T[known], self.part.source_T[known]), 1)
        return pairs_EG

    @property
    def denominator(self) -> int:
        """1 for tokens; G for counts: each GPU sends 1/G of them (rule 11)."""
        return self.layout.gpu_count if isinstance(self.part, CountsPart) else 1

    @cached_property
    def load_SE(self) -> list[list[Fraction]]:
        """Pairs of every expert by EP set."""
        sets = range(self.layout.sets)
        return [
            [
                Fraction(int(row[self.layout.set_G == number].sum()), self.denominator)
                for row in self.pairs_EG
            ]
            for number in sets
        ]


Checker = Callable[[Certificate, Evidence], Fraction]
"""Returns the lower bound of the layer's objective that the certificate proves.

Raises KeyError, TypeError, ValueError or ZeroDivisionError for a certificate that
does not have the shape of its kind.
"""

MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)

SINGLE_KINDS = ("nothing_moves", "one_copy", "walks")
"""What also holds where GPUs have no slot in most layers."""

FREE_KINDS = ("nothing_moves", "mean_pairs")
"""What holds for any number of slots."""

CHECKERS: Registry[Checker] = Registry("certificate")


def proven(certificate: Certificate, evidence: Evidence) -> Fraction:
    """Return the bound that a layer's certificate proves; 0 where it proves none.

    Raises
    ------
    ManifestError
        For an unknown kind or a certificate that lacks what its kind needs.
    """
    kind = certificate.get("kind")
    if kind not in CHECKERS.names():
        raise ManifestError(
            "is no certificate this planner can check",
            where=f"/bound/certificate/layers/{evidence.layer}/kind",
            value=kind,
            fix=f"known kinds: {', '.join(CHECKERS.names())}",
        )
    if evidence.single and kind not in SINGLE_KINDS:
        return Fraction(0)
    if evidence.free and kind not in FREE_KINDS:
        return Fraction(0)
    try:
        return max(Fraction(0), CHECKERS.get(str(kind))(certificate, evidence))
    except MALFORMED as error:
        raise ManifestError(
            f"does not have the shape of a {kind} certificate: {error!r}",
            where=f"/bound/certificate/layers/{evidence.layer}",
        ) from error
