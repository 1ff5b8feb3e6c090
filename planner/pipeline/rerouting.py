"""Choices changed on purpose before a replay: what becomes of loads and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from planner import bundled
from planner.arrays import FloatArray, IdArray
from planner.errors import UsageError
from planner.evaluator import Evaluation
from planner.evaluator import evaluate as judge
from planner.executor.gating.balancing import Balance, relative
from planner.executor.gating.capacity import Dropped, checked_factor
from planner.executor.gating.rerouting import OutputChange, Rerouting, reroute_forced
from planner.instance import Caps, Objective, PlacementInstance, Workload
from planner.manifest.schema import LayerPrediction
from planner.pipeline.evaluating import plan_of
from planner.pipeline.fill import layer_predictions
from planner.verifier import Setting
from planner.workload.parts import TokenPart
from planner.workload.tokens import RoutingTrace

if TYPE_CHECKING:
    from planner.executor.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What ``planner replay`` is asked to change, nothing by default.

    Attributes
    ----------
    balance
        How biases follow loads (:class:`Balance`); None: they do not.
    capacity_factor
        What limits every expert; None: nothing does.
    """

    balance: Balance | None = None
    capacity_factor: float | None = None

    @classmethod
    def of(cls, balance: str | None, capacity_factor: float | None) -> "Change | None":
        """Read the options; None if they ask for nothing.

        Raises
        ------
        UsageError
            For an option that does not exist.
        """
        if balance is None and capacity_factor is None:
            return None
        return cls(
            balance=None if balance is None else Balance.parse(balance),
            capacity_factor=None
            if capacity_factor is None
            else checked_factor(capacity_factor),
        )

    def check_gating(self, gating: str) -> None:
        """Refuse to balance choices that are the trace's.

        Raises
        ------
        UsageError
            If there is no router whose biases could move.
        """
        if self.balance is not None and gating != "real":
            raise UsageError(
                "--balance moves the biases of a model's own router: it needs --gating "
                "real, the bundled trace and --executor local"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """Loads of one part under one set of choices.

    Attributes
    ----------
    expert_max_over_mean, gpu_max_over_mean
        Of (token, expert) pairs, by layer.
    link_time_s
        Time of the busiest links, layers put together as in the plan's objective.
    busiest_link
        The link that takes longest in any layer and leg.
    """

    expert_max_over_mean: tuple[float, ...]
    gpu_max_over_mean: tuple[float, ...]
    link_time_s: float
    busiest_link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReroutedPart:
    """One part before and after.

    Attributes
    ----------
    choices_kept
        Share of the (token, expert) pairs before that are there after.
    dropped
        What capacity dropped.
    outputs
        None where routing was forced.
    """

    before: Loads
    after: Loads
    choices_kept: float
    dropped: Dropped
    outputs: OutputChange | None


def rerouted(
    change: Change,
    shown: Sequence[tuple[Setting, TokenPart]],
    text: RoutingTrace | None,
    host: "Host | None" = None,
) -> tuple[list[Rerouting], tuple[float, ...]]:
    """Decide the choices of some parts.

    Biases follow the loads of the first setting's planning part.

    Parameters
    ----------
    text
        The trace with its text, for real gating; None: the trace's choices.
    host
        This process's rank: the first one decides for all. None: there is no other.

    Returns
    -------
    reroutings, worst
        One per part; and by step of balancing the greatest load of an expert over
        its layer's mean.
    """
    if text is None:
        assert change.capacity_factor is not None
        return [
            reroute_forced(part.experts_LTK, setting.model.experts, factor)
            for setting, part in shown
            for factor in (change.capacity_factor,)
        ], ()
    # torch is an extra: forced choices must work where it is absent.
    from planner.executor.host import LocalHost
    from planner.executor.text.reroute import Decision, Text, decided_once, reroute_text

    assert text.token_id_T is not None
    token_ids, seq_ids = text.token_id_T, text.sequence_T

    def text_of(part: TokenPart) -> Text:
        rows = part.row_T
        return Text(token_ids=token_ids[rows], seq_ids=seq_ids[rows])

    first = shown[0][0]
    planning = first.parts.planning
    assert isinstance(planning, TokenPart)

    def decide() -> "Decision":
        found: Decision = reroute_text(
            bundled.tiny_moe_weights(),
            text_of(planning),
            [text_of(part) for _, part in shown],
            numbers=plan_of(first.manifest).layer_numbers,
            balance=change.balance,
            capacity_factor=change.capacity_factor,
        )
        return found

    reroutings, worst_SL = decided_once(host or LocalHost(1), decide)
    return reroutings, tuple(worst_SL.max(axis=1).tolist())


def _evaluation(setting: Setting, part: TokenPart) -> Evaluation:
    """Predict a part as the plan's own prediction was made."""
    plan = plan_of(setting.manifest)
    gpus = setting.layout.gpu_count
    instance = PlacementInstance(
        topology=setting.topology,
        routes=setting.routes,
        model=setting.model,
        layout=setting.layout,
        selection=setting.manifest.selection,
        objective=Objective(layers=setting.manifest.objective.layers),
        caps=Caps(),
        slots_per_gpu=plan.slots_LGJ.shape[2],
        workloads=(
            Workload(
                traffic=setting.traffic,
                endpoint=setting.endpoint,
                message_bytes=setting.message,
                planning=part,
                holdout=None,
            ),
        ),
        memory_bytes_G=np.zeros(gpus, dtype=np.int64),
        memory_limit_G=np.zeros(gpus, dtype=np.int64),
    )
    return judge(instance, plan, part)


def predicted_again(
    setting: Setting, part: TokenPart, rerouting: Rerouting
) -> tuple[tuple[LayerPrediction, ...], ReroutedPart]:
    """Predict a part with its new choices, and put the loads beside those before."""
    before = _evaluation(setting, part)
    after = _evaluation(setting, replace(part, experts_LTK=rerouting.kept_LTK))
    return layer_predictions(after), ReroutedPart(
        before=_loads(before, part.experts_LTK),
        after=_loads(after, rerouting.kept_LTK),
        choices_kept=_kept(part.experts_LTK, rerouting.kept_LTK),
        dropped=rerouting.dropped,
        outputs=rerouting.outputs,
    )


def _loads(evaluation: Evaluation, experts_LTK: IdArray) -> Loads:
    instance = evaluation.instance
    experts = instance.model.experts
    counts = [np.bincount(ids[ids >= 0], minlength=experts) for ids in experts_LTK]
    expert_L: FloatArray = relative(np.stack(counts)).max(axis=1)
    return Loads(
        expert_max_over_mean=tuple(expert_L.tolist()),
        gpu_max_over_mean=tuple(map(float, evaluation.gpu_imbalance_L)),
        link_time_s=float(evaluation.values["link_time"][instance.objective.layers]),
        busiest_link=_busiest(evaluation),
    )


def _busiest(evaluation: Evaluation) -> str:
    """Return the link with the longest time over all layers and legs."""
    entries = [e for layer in layer_predictions(evaluation) for e in layer.busiest]
    return max(entries, key=lambda entry: entry.seconds).link if entries else "-"


def _kept(old_LTK: IdArray, new_LTK: IdArray) -> float:
    """Return the share of pairs that are in both."""
    both, pairs = 0, 0
    for old_TK, new_TK in zip(old_LTK, new_LTK, strict=True):
        wanted_TK = old_TK >= 0
        pairs += int(wanted_TK.sum())
        same_TK = (old_TK[:, :, None] == new_TK[:, None, :]).any(axis=2)
        both += int((same_TK & wanted_TK).sum())
    return both / max(1, pairs)
