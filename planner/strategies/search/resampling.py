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
from planner.strategies.search.network import Network
from planner.workload.parts import TokenPart

DRAWS = 8
"""Draws of sequences that are followed at a time."""


class Sequences:
    """The sequences of a part, each with its DP rank, and the ranks of each tag.

    Attributes
    ----------
    number_T
        Place of each token's sequence among the part's.
    rank_Q, tag_Q
        DP rank and tag of each sequence.
    """

    def __init__(self, part: TokenPart) -> None:
        assert part.sequence_T is not None
        _, first_Q, self.number_T = np.unique(
            part.sequence_T, return_index=True, return_inverse=True
        )
        self.rank_Q: IntArray = part.rank_T[first_Q]
        tag_T = np.zeros_like(part.rank_T) if part.tag_T is None else part.tag_T
        self.tag_Q: IntArray = tag_T[first_Q]

    @property
    def count(self) -> int:
        """Q."""
        return int(self.rank_Q.size)

    def of_tag(self, tag: int) -> tuple[IntArray, IntArray]:
        """Return a tag's sequences and the DP ranks that they may have."""
        mine_Q = np.flatnonzero(self.tag_Q == tag)
        low, high = self.rank_Q[mine_Q].min(), self.rank_Q[mine_Q].max()
        return mine_Q, np.arange(low, high + 1)

    def drawn(self, random: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Draw as many sequences of every tag as there are; return their ranks too."""
        numbers, ranks = [], []
        for tag in np.unique(self.tag_Q).tolist():
            mine_Q, ranks_R = self.of_tag(tag)
            numbers.append(random.choice(mine_Q, mine_Q.size))
            ranks.append(random.choice(ranks_R, mine_Q.size))
        return np.concatenate(numbers), np.concatenate(ranks)


def stays_together(part: TokenPart) -> bool:
    """Whether every sequence is on one DP rank."""
    if part.sequence_T is None:
        return False
    sequences = Sequences(part)
    return bool((part.rank_T == sequences.rank_Q[sequences.number_T]).all())


def resampled(
    instance: PlacementInstance, part: TokenPart, exact: Network, place_G: IntArray
) -> tuple[Network, Sample]:
    """Return the network of several draws and the tokens to look at with it.

    Parameters
    ----------
    exact
        The network in which every source GPU is a class.
    place_G
        GPUs of the same number serve a token alike when it leaves from them: a token
        is tried at one of each that its sequence may leave from.
    """
    sequences = Sequences(part)
    sample, class_QD = _tried(instance, part, sequences, place_G)
    random = np.random.default_rng(0)
    members_ST = np.asarray(instance.layout.attention_groups, dtype=np.int64)
    classes = int(class_QD.max()) + 1
    times_KC = np.zeros((DRAWS, classes))
    keys, places, shares = [], [], []
    for draw in range(DRAWS):
        number_V, rank_V = sequences.drawn(random)
        gpu_V = members_ST[rank_V].reshape(-1)
        number_V = np.repeat(number_V, members_ST.shape[1])
        class_V = class_QD[number_V, place_G[gpu_V]]
        np.add.at(times_KC[draw], class_V, 1.0 / members_ST.shape[1])
        key_Y, place_Y, share_Y = _carried(exact, class_V, gpu_V, classes)
        keys.append(key_Y)
        places.append(place_Y + draw * exact.cost_X.size)
        shares.append(share_Y / members_ST.shape[1])
    network = _together(exact, classes, (keys, places, shares))
    return network, sample._replace(times_KC=times_KC)


def _tried(
    instance: PlacementInstance,
    part: TokenPart,
    sequences: Sequences,
    place_G: IntArray,
) -> tuple[Sample, IntArray]:
    """Try every token where its sequence may be; return the class by [sequence, place].

    -1 where a sequence is not tried.
    """
    members_ST = np.asarray(instance.layout.attention_groups, dtype=np.int64)
    class_QD = np.full((sequences.count, int(place_G.max()) + 1), -1, dtype=np.int64)
    gpu_QD = np.zeros_like(class_QD)
    for tag in np.unique(sequences.tag_Q).tolist():
        mine_Q, ranks_R = sequences.of_tag(tag)
        gpus = members_ST[ranks_R].reshape(-1)
        kinds, first = np.unique(place_G[gpus], return_index=True)
        gpu_QD[np.ix_(mine_Q, kinds)] = gpus[first]
        class_QD[np.ix_(mine_Q, kinds)] = 0
    tried_QD = class_QD == 0
    class_QD[tried_QD] = np.arange(int(tried_QD.sum()))
    token_U, kind_U = np.nonzero(tried_QD[sequences.number_T])
    number_U = sequences.number_T[token_U]
    sample = Sample(
        index_T=token_U,
        source_T=gpu_QD[number_U, kind_U],
        ordinal_T=part.ordinal_T[token_U],
        class_T=class_QD[number_U, kind_U],
    )
    return sample, class_QD


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
    loads: tuple[list[IntArray], list[IntArray], list[FloatArray]],
) -> Network:
    """Return the network of all draws; what is loaded twice is added up."""
    keys, places, shares = (np.concatenate(each) for each in loads)
    draws, width = len(loads[0]), exact.cost_X.size
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
    )
