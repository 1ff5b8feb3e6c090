"""What a placement is guided by where whole sequences come back on other GPUs.

Sequences are few and of very unequal length: which GPU gets a long one decides which
link is the busiest, and the tokens to come will not repeat it. So sequences are drawn
anew, with replacement, as many of each tag as were seen, each on a DP rank of its
tag's; the mean, over several such draws, of the busiest link is what is followed. A
sequence chose its experts once: only where its tokens leave from differs between
draws. So sequences are the classes of one network, whose places are those of all
draws, one after the other.
"""

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.choices import Sample
from planner.strategies.search.network import Network, network_of
from planner.strategies.search.serving import served_alike
from planner.workload.parts import TokenPart

SEED = 0
MOST_DRAWS, LEAST_DRAWS = 64, 8
"""Draws of sequences: the more there are, the less of one is learnt by heart."""
DRAWS_PER_SECOND = 14.0
"""Draws for every second of the limit and layer: each makes every move slower."""
MOST_PLACES, MOST_DRAWN = 16384, 8192
"""Places, and sequences, of all draws together: what a move has to look at."""
BALANCED = 16
"""Draws whose loads of GPUs and domains are compared with the caps."""
TRIES = 4
"""Places that a sequence is tried at where they decide which copies serve it."""


class Sequences:
    """The sequences of a part and the DP ranks that they may come back on.

    Ranks are alike where their GPUs are served by the same copies; a sequence is tried
    at one rank of a few kinds. Its tokens there, by which of the rank's t GPUs they
    leave from, are t classes.

    Attributes
    ----------
    source_C
        The GPU that a class is tried at.
    """

    def __init__(self, instance: PlacementInstance, part: TokenPart) -> None:
        first_Q, self._number_T = _numbered(part)
        self._rank_Q: IntArray = part.rank_T[first_Q]
        tag_T = np.zeros_like(part.rank_T) if part.tag_T is None else part.tag_T
        self._tag_Q: IntArray = tag_T[first_Q]
        members_ST = np.asarray(instance.layout.attention_groups, dtype=np.int64)
        self._members_ST = members_ST
        here_T = members_ST[part.rank_T] == part.source_T[:, None]
        self._member_T: IntArray = here_T.argmax(axis=1)
        kinds_ST = served_alike(instance)[members_ST]
        self._kind_S: IntArray = np.unique(kinds_ST, axis=0, return_inverse=True)[1]
        self._class_QD, ranks = self._tried()
        self.source_C: IntArray = members_ST[ranks].reshape(-1)

    @property
    def count(self) -> int:
        """Q."""
        return int(self._rank_Q.size)

    def _ranks(self, tag: int) -> tuple[IntArray, IntArray]:
        """Return a tag's sequences and the DP ranks that they may have.

        From the first to the last that one of them has: what homes by tag, in turn or
        balanced give out.
        """
        mine_Q = np.flatnonzero(self._tag_Q == tag)
        low, high = self._rank_Q[mine_Q].min(), self._rank_Q[mine_Q].max()
        return mine_Q, np.arange(low, high + 1)

    def _tried(self) -> tuple[IntArray, IntArray]:
        """Try every sequence at a few kinds of ranks, its own among them.

        Returns the first class of a sequence at a kind, [Q, D], -1 where it is not
        tried, and the rank that stands for the kind each time.
        """
        rank_QD = np.full((self.count, int(self._kind_S.max()) + 1), -1, dtype=np.int64)
        for tag in np.unique(self._tag_Q).tolist():
            mine_Q, ranks_R = self._ranks(tag)
            there, first = np.unique(self._kind_S[ranks_R], return_index=True)
            own_Q = np.searchsorted(there, self._kind_S[self._rank_Q[mine_Q]])
            tries = min(TRIES, there.size)
            step = np.arange(tries) * there.size // tries
            at_QN = (own_Q[:, None] + step) % there.size
            rank_QD[mine_Q[:, None], there[at_QN]] = ranks_R[first[at_QN]]
        tried_QD = rank_QD >= 0
        class_QD = np.full_like(rank_QD, -1)
        tp = self._members_ST.shape[1]
        class_QD[tried_QD] = np.arange(int(tried_QD.sum())) * tp
        return class_QD, rank_QD[tried_QD]

    def sample(self, part: TokenPart) -> Sample:
        """Return every token in every class of its sequence."""
        class_TD = self._class_QD[self._number_T]
        token_U, kind_U = np.nonzero(class_TD >= 0)
        class_U = class_TD[token_U, kind_U] + self._member_T[token_U]
        return Sample(
            index_T=token_U,
            source_T=self.source_C[class_U],
            ordinal_T=part.ordinal_T[token_U],
            class_T=class_U,
        )

    def drawn(self, random: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Draw as many sequences of every tag as there are; return classes and GPUs."""
        classes, gpus = [], []
        for tag in np.unique(self._tag_Q).tolist():
            mine_Q, ranks_R = self._ranks(tag)
            drawn_V = random.choice(mine_Q, mine_Q.size)
            class_VR = self._class_QD[drawn_V[:, None], self._kind_S[ranks_R]]
            # The largest of random numbers, of those that are not ruled out.
            chance_VR = np.where(class_VR >= 0, random.random(class_VR.shape), -1.0)
            at_V = chance_VR.argmax(axis=1)
            first_V = class_VR[np.arange(drawn_V.size), at_V]
            members_VT = self._members_ST[ranks_R[at_V]]
            classes.append(first_V[:, None] + np.arange(members_VT.shape[1]))
            gpus.append(members_VT)
        return (
            np.concatenate([each.reshape(-1) for each in classes]),
            np.concatenate([each.reshape(-1) for each in gpus]),
        )


def _numbered(part: TokenPart) -> tuple[IntArray, IntArray]:
    """Return the first token of each sequence and the sequence of each token."""
    assert part.sequence_T is not None
    _, first_Q, number_T = np.unique(
        part.sequence_T, return_index=True, return_inverse=True
    )
    return first_Q, number_T


def stays_together(part: TokenPart) -> bool:
    """Whether every sequence is on one DP rank, and they are few enough to draw."""
    if part.sequence_T is None:
        return False
    first_Q, number_T = _numbered(part)
    together = (part.rank_T == part.rank_T[first_Q][number_T]).all()
    return bool(together) and 0 < first_Q.size <= MOST_DRAWN // LEAST_DRAWS


def resampled(
    instance: PlacementInstance, part: TokenPart, seconds: float = np.inf
) -> tuple[Network, Sample]:
    """Return the network of several draws and the tokens to look at with it.

    ``seconds`` is the limit's share of a layer, whatever the number of threads.
    """
    exact, sequences = network_of(instance), Sequences(instance, part)
    classes, places = sequences.source_C.size, exact.cost_X.size
    most = min(MOST_PLACES // max(places, 1), MOST_DRAWN // sequences.count)
    draws = int(min(MOST_DRAWS, most, DRAWS_PER_SECOND * seconds))
    draws = max(LEAST_DRAWS, draws)
    random = np.random.default_rng(SEED)
    times_KC, loads = np.zeros((draws, classes)), []
    for draw in range(draws):
        class_V, gpu_V = sequences.drawn(random)
        np.add.at(times_KC[draw], class_V, 1.0)
        key_Y, place_Y, share_Y = _carried(exact, class_V, gpu_V, classes)
        loads.append((key_Y, place_Y + draw * places, share_Y))
    sample = sequences.sample(part)._replace(times_KC=times_KC[:BALANCED])
    return _together(exact, classes, loads), sample


def _carried(
    exact: Network, class_V: IntArray, gpu_V: IntArray, classes: int
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return (key, place, share) of what sequences load from where they are drawn."""
    column_CV = np.arange(exact.columns)[:, None]
    was_CV = (column_CV * exact.classes + gpu_V).reshape(-1)
    key_CV = (column_CV * classes + class_V).reshape(-1)
    size = exact.first_K[was_CV + 1] - exact.first_K[was_CV]
    at = np.repeat(exact.first_K[was_CV] - np.cumsum(size) + size, size)
    at = at + np.arange(at.size)
    return np.repeat(key_CV, size), exact.place_Y[at], exact.share_Y[at]


def _together(
    exact: Network,
    classes: int,
    loads: list[tuple[IntArray, IntArray, FloatArray]],
) -> Network:
    """Return the network of all draws; what is loaded twice is added up."""
    draws, width = len(loads), exact.cost_X.size
    keys, places, shares = (np.concatenate(each) for each in zip(*loads, strict=True))
    code, where = np.unique(keys * (draws * width) + places, return_inverse=True)
    share_Y = np.bincount(where, weights=shares, minlength=code.size)
    key_Y, place_Y = np.divmod(code, draws * width)
    starts = [draw * width + exact.leg_start[:-1] for draw in range(draws)]
    return exact._replace(
        classes=classes,
        first_K=np.searchsorted(key_Y, np.arange(exact.columns * classes + 1)),
        place_Y=place_Y,
        share_Y=share_Y.astype(np.float64),
        cost_X=np.tile(exact.cost_X / draws, draws),
        leg_start=np.concatenate([*starts, [draws * width]]).astype(np.int64),
        draws=draws,
    )
