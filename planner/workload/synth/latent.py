"""What a token is like: the hidden vector that every layer's router looks at."""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from planner.arrays import IntArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentModel:
    """Where a token's hidden vector comes from; the weights are shares of variance.

    ``depth`` is the part that drifts from layer to layer, ``context`` the part that
    drifts from token to token of a sequence; everything else is the same for a token
    in all layers, which is why layers far apart still agree about it. ``dimensions``
    is the rank r of the space of hidden vectors: the lower, the more experts are
    chosen together. ``vocabulary`` ranks follow ``1 / rank^zipf``; the commonest
    ``shared_head`` of them mean the same under every tag.
    """

    dimensions: int
    vocabulary: int
    zipf: float
    token: float
    tag: float
    sequence: float
    context: float
    depth: float
    depth_memory: float = 0.9
    context_memory: float = 0.9
    shared_head: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Which sequence and tag each row is of; rows of a sequence follow each other."""

    sequence_T: IntArray
    pos_T: IntArray
    tag_T: IntArray


def cut_texts(tokens: int, sequences: int, tags: int) -> Texts:
    """Return near-equal sequences that take the tags in turns."""
    # Sequence i starts at row ⌊i·T/n⌋.
    starts = np.arange(sequences, dtype=np.int64) * tokens // sequences
    lengths = np.diff(np.append(starts, tokens))
    sequence_T = np.repeat(np.arange(sequences, dtype=np.int64), lengths)
    return Texts(
        sequence_T=sequence_T,
        pos_T=np.arange(tokens, dtype=np.int64) - starts[sequence_T],
        tag_T=sequence_T % tags,
    )


def draw_token_ids(
    rng: np.random.Generator, model: LatentModel, texts: Texts
) -> IntArray:
    """Draw Zipf ranks; beyond the shared head each tag has ids of its own."""
    weight = np.arange(1, model.vocabulary + 1, dtype=np.float64) ** -model.zipf
    edges = np.cumsum(weight / weight.sum())
    rank_T = np.searchsorted(edges, rng.random(texts.tag_T.size))
    rank_T = np.minimum(rank_T, model.vocabulary - 1)
    tail = model.vocabulary - min(model.shared_head, model.vocabulary)
    own = rank_T >= model.shared_head
    ids: IntArray = rank_T + np.where(own, texts.tag_T * tail, 0)
    return ids


class HiddenLayers:
    """Hidden vectors of one layer after another, of unit variance per dimension."""

    def __init__(
        self,
        rng: np.random.Generator,
        model: LatentModel,
        texts: Texts,
        token_id_T: IntArray,
    ) -> None:
        """Draw everything that the layers share."""
        self._rng, self._model = rng, model
        self._size = (texts.tag_T.size, model.dimensions)
        parts = (
            (model.token, token_id_T, False),
            (model.tag, texts.tag_T, True),
            (model.sequence, texts.sequence_T, False),
        )
        self._shared_TR = np.zeros(self._size, dtype=np.float32)
        for share, code_T, level in parts:
            kinds = _gaussian(rng, (int(code_T.max()) + 1, model.dimensions))
            if level:  # few tags: an unlucky length would decide the whole trace
                kinds = unit_length(kinds, axis=1) * np.sqrt(model.dimensions)
            self._shared_TR += (np.sqrt(share) * kinds[code_T]).astype(np.float32)
        steps = _gaussian(rng, self._size)
        _remember(steps, texts.pos_T, np.float32(model.context_memory))
        self._shared_TR += np.float32(np.sqrt(model.context)) * steps
        self._depth_TR = _gaussian(rng, self._size)

    def next_layer(self) -> Floats:
        """Return hidden vectors [T, R] of the next layer."""
        memory = self._model.depth_memory
        hidden: Floats = (
            self._shared_TR + np.float32(np.sqrt(self._model.depth)) * self._depth_TR
        )
        fresh = _gaussian(self._rng, self._size)
        self._depth_TR *= np.float32(memory)
        self._depth_TR += np.float32(np.sqrt(1 - memory**2)) * fresh
        return hidden


def draw_router(rng: np.random.Generator, dimensions: int, experts: int) -> Floats:
    """Return one unit direction per expert, [R, E]."""
    return unit_length(_gaussian(rng, (dimensions, experts)), axis=0)


def unit_length(vectors: Floats, *, axis: int) -> Floats:
    """Return the vectors scaled to length 1."""
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=axis, keepdims=True)
    return scaled


def _gaussian(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    return rng.standard_normal(size, dtype=np.float32)


@njit(cache=True)
def _remember(steps_TR, pos_T, memory):  # type: ignore[no-untyped-def]
    """Turn independent steps into an AR(1) walk along each sequence, in place."""
    fresh = np.float32(np.sqrt(np.float32(1.0) - memory * memory))
    for row in range(1, steps_TR.shape[0]):
        if pos_T[row] > 0:
            for axis in range(steps_TR.shape[1]):
                steps_TR[row, axis] = (
                    memory * steps_TR[row - 1, axis] + fresh * steps_TR[row, axis]
                )
