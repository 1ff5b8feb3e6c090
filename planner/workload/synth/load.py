"""How much each expert is to carry, and the router bias that makes it so."""

from dataclasses import dataclass

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.workload.synth.latent import Floats
from planner.workload.synth.router import count

# Rounds and the most rows they look at: a few thousand rows bring the bias near its
# place, more of them settle it.
_ROUNDS = ((12, 2048), (2, 8192))
# Scores have unit variance; at the share of experts that are chosen (1/32 to 1/4) a
# bias of δ raises the log of an expert's load by 1.3 δ to 2.3 δ, and by twice that
# through the sums that open groups: longer steps than 1/2 of their inverse swing.
_STEP = 0.25


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
    return _at_most(share_E / share_E.sum(), 1 / choice.top_k)


def _at_most(share_E: FloatArray, most: float) -> FloatArray:
    """Cut shares to ``most`` and scale the others up until the sum is 1 again."""
    cut_E = np.zeros(share_E.size, dtype=np.bool_)
    while (share_E[~cut_E] > most).any():
        cut_E |= share_E > most
        rest = 1 - most * int(cut_E.sum())
        share_E = np.where(cut_E, most, share_E * (rest / share_E[~cut_E].sum()))
    return share_E


def fit_bias(scores_TE: Floats, target_E: FloatArray, choice: Choice) -> Floats:
    """Return the bias under which expert loads come near the target shares.

    As in auxiliary-loss-free balancing, a bias goes up while its expert carries less
    than wanted and down while it carries more; here towards any load, not an equal one.
    """
    bias_E = np.zeros(choice.experts, dtype=np.float32)
    for rounds, most_rows in _ROUNDS:
        rows_TE = scores_TE[:: -(-scores_TE.shape[0] // most_rows)]
        wanted_E = target_E * rows_TE.shape[0] * choice.top_k
        for _ in range(rounds):
            load_E = load_under(rows_TE, bias_E, choice)
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
