"""What a placement is guided by where the tokens to come are others than those seen.

Which token leaves from which GPU is chance: the busiest link of the tokens seen is
partly luck that unseen sequences will not repeat, and a search that looks at every
GPU on its own learns the luck. The *mixed* network lets the tokens of a class of
sources leave from all of them, in proportion to how many each has, whatever they
chose; a class is a domain, or all GPUs where domains cannot be told apart by what
their tokens choose. Where the source or the hash decides on a copy, a token is tried
at several sources, or with several ordinals.
"""

from typing import NamedTuple

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.choices import Sample
from planner.strategies.search.network import Classes, Network, network_of
from planner.strategies.search.resampling import resampled, stays_together
from planner.strategies.search.serving import homes_of
from planner.workload.parts import TokenPart

TRIES = 4
"""Sources or ordinals that a token is tried with where they decide on a copy."""
ALIKE = 2.0
"""Sources whose counts of experts differ by less than this, χ² per degree of freedom,
are taken for draws from one population: chance alone gives 1."""


class Guide(NamedTuple):
    """A mixed network and the tokens to look at with it."""

    network: Network
    sample: Sample
    drawn: bool = False


def guide_of(instance: PlacementInstance) -> Guide | None:
    """Return what to follow instead of the tokens as seen; None where that is no help.

    Linear traffic has bounds to be compared with, and pairs do not have sources.
    """
    part = instance.planning
    if not isinstance(part, TokenPart) or instance.objective.name == "gpu_tokens":
        return None
    chosen = homes_of(instance).domain_H.size > 0
    if stays_together(part):
        exact = network_of(instance)
        if exact.linear:
            return None
        return Guide(
            *resampled(instance, part, exact, _served_alike(instance, chosen)), True
        )
    alike = sources_alike(instance, part)
    sample = _sample(instance, part, alike, chosen)
    classes = _classes(instance, part, sample, (alike, chosen))
    network = network_of(instance, classes)
    if network.linear:
        return None
    return Guide(network, sample._replace(class_T=classes.class_S[sample.source_T]))


def sources_alike(instance: PlacementInstance, part: TokenPart) -> bool:
    """Whether the experts that tokens choose say nothing of where they leave from."""
    gpus, experts = instance.layout.gpu_count, instance.model.experts
    ratios = []
    for ids_TK in part.experts_LTK:
        token, choice = np.nonzero(ids_TK >= 0)
        key = part.source_T[token] * experts + ids_TK[token, choice]
        count_SE = np.bincount(key, minlength=gpus * experts).reshape(gpus, experts)
        sum_S, sum_E = count_SE.sum(axis=1), count_SE.sum(axis=0)
        count_SE = count_SE[sum_S > 0][:, sum_E > 0]
        freedom = (count_SE.shape[0] - 1) * (count_SE.shape[1] - 1)
        if freedom > 0:
            expected_SE = np.outer(sum_S[sum_S > 0], sum_E[sum_E > 0]) / token.size
            ratios.append(((count_SE - expected_SE) ** 2 / expected_SE).sum() / freedom)
    return bool(np.mean(ratios) < ALIKE) if ratios else True


def _spare(instance: PlacementInstance) -> bool:
    return instance.slot_count > instance.model.experts


def _sample(
    instance: PlacementInstance, part: TokenPart, alike: bool, chosen: bool
) -> Sample:
    """Try every token at several sources or ordinals where they decide on a copy."""
    every = np.arange(part.source_T.size)
    seen = Sample(every, part.source_T, part.ordinal_T, part.source_T)
    if not (_spare(instance) and alike):
        return seen
    gpus = instance.layout.gpu_count
    tries = min(TRIES, gpus)
    moved = np.repeat(np.arange(tries), part.source_T.size)
    sample = Sample(*(np.tile(seen_T, tries) for seen_T in seen))
    if not (instance.selection == "nearest" or chosen):
        return sample._replace(ordinal_T=sample.ordinal_T + moved)
    # One more, so that sources in turn are tried as well as domains.
    source_T = (sample.source_T + moved * (gpus // tries + 1)) % gpus
    return sample._replace(source_T=source_T)


def _classes(
    instance: PlacementInstance,
    part: TokenPart,
    sample: Sample,
    known: tuple[bool, bool],
) -> Classes:
    """Take sources together, each by the number of tokens that it really has.

    Where ``nearest`` looks at the source, only sources that it treats alike: of one
    domain if only domains matter, and where it deals far copies in turn, those that
    get the first of two apart from those that get the second. Where the plan says who
    serves a domain or a DP rank, sources of one. ``known`` is whether sources are
    alike, and whether the plan says.
    """
    alike, chosen = known
    layout = instance.layout
    if chosen or (instance.selection == "nearest" and _spare(instance)):
        key_G = _served_alike(instance, chosen)
    elif alike:
        key_G = layout.set_G
    else:
        key_G = layout.set_G * layout.gpu_count + layout.domain_G
    class_S: IntArray = np.unique(key_G, return_inverse=True)[1].astype(np.int64)
    tokens_S = np.bincount(part.source_T, minlength=layout.gpu_count).astype(np.float64)
    tried_C = np.bincount(class_S[sample.source_T], minlength=int(class_S.max()) + 1)
    # A class without tokens loads nothing, whatever its shares.
    share_S: FloatArray = tokens_S / np.maximum(tried_C, 1)[class_S]
    return Classes(class_S=class_S, share_S=share_S)


def _served_alike(instance: PlacementInstance, chosen: bool) -> IntArray:
    """Return numbers that GPUs share whose tokens are served by the same copies."""
    layout = instance.layout
    gpus = layout.gpu_count
    key_G = layout.set_G.astype(np.int64)
    if _spare(instance) and (chosen or instance.selection == "nearest"):
        key_G = np.arange(gpus)
        if instance.traffic == "dedup_domain":
            key_G = layout.set_G * gpus + layout.domain_G
            if not chosen:
                key_G = 2 * key_G + np.arange(gpus) % 2
    return np.unique(key_G, return_inverse=True)[1].astype(np.int64)


def by_cells(network: Network) -> Network | None:
    """Return the network without what GPUs load; None where no cell loads anything."""
    start = network.first_K[network.ep * network.classes]
    if network.cell_CR.min() < 0 or not network.alike or start == network.place_Y.size:
        return None
    place_Y = network.place_Y[start:]
    used = np.unique(place_Y)
    return network._replace(
        cells_only=True,
        first_K=np.maximum(network.first_K - start, 0),
        place_Y=np.searchsorted(used, place_Y),
        share_Y=network.share_Y[start:],
        cost_X=network.cost_X[used],
        leg_start=np.searchsorted(used, network.leg_start),
    )


def gpu_places(network: Network) -> IntArray:
    """Return the places that GPUs load."""
    start = network.first_K[network.ep * network.classes]
    places: IntArray = np.unique(network.place_Y[:start])
    return places
