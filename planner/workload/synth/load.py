"""How much each expert is to carry, and the router bias that makes it so."""

from dataclasses import dataclass

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.workload.synth.latent import Floats
from planner.workload.synth.router import count

_ROUNDS = 14
# Scores have unit variance; at the share of experts that are chosen (1/32 to 1/4) a
# bias of δ raises the log of an expert's load by 1.3 δ to 2.3 δ.
_STEP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadModel:
    """Load of an expert: lognormal with ``sigma``, a few ``hot`` ones times 1 + Exp."""

    sigma: float
    hot: int = 0
    hot_extra: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """K of E experts; of ``groups`` equal groups only ``kept`` are open to a token."""

    experts: int
    top_k: int
    groups: int = 1
    kept: int = 1


def draw_target(
    rng: np.random.Generator, load: LoadModel, choice: Choice
) -> FloatArray:
    """Return the share of each expert, summing to 1.

    No expert can be chosen twice by a token, so no share may exceed 1/K.
    """
    share_E: FloatArray = np.exp(load.sigma * rng.standard_normal(choice.experts))
    hot = rng.choice(choice.experts, size=load.hot, replace=False)
    share_E[hot] *= 1 + load.hot_extra * rng.standard_exponential(load.hot)
    share_E /= share_E.sum()
    share_E = np.minimum(share_E, 0.9 / choice.top_k)
    return share_E / share_E.sum()


def fit_bias(scores_TE: Floats, target_E: FloatArray, choice: Choice) -> Floats:
    """Return the bias under which expert loads come near the target shares.

    As in auxiliary-loss-free balancing, a bias goes up while its expert carries less
    than wanted and down while it carries more; here towards any load, not an equal one.
    """
    wanted_E = target_E * scores_TE.shape[0] * choice.top_k
    bias_E = np.zeros(choice.experts, dtype=np.float32)
    for _ in range(_ROUNDS):
        load_E = load_under(scores_TE, bias_E, choice)
        short_E = np.log((wanted_E + 0.5) / (load_E + 0.5))
        bias_E += (_STEP * short_E).astype(np.float32)
    return bias_E


def load_under(scores_TE: Floats, bias_E: Floats, choice: Choice) -> IntArray:
    """Return tokens per expert."""
    return count(
        scores_TE,
        bias_E,
        top_k=choice.top_k,
        groups=choice.groups,
        kept=choice.kept,
    )
