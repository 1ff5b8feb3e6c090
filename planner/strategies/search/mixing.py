"""The mixed network: tokens of a class of sources leave from all of them.

They do so in proportion to how many tokens each source has, whatever they chose; a
class is a domain, or all GPUs where domains cannot be told apart by what their tokens
choose. Where the source or the hash decides on a copy, a token is tried at several
sources, or with several ordinals.
"""

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.choices import Sample
from planner.strategies.search.network import Classes, Network, network_of
from planner.strategies.search.serving import has_spare, homes_of, served_alike
from planner.workload.parts import TokenPart

TRIES = 4
"""Sources or ordinals that a token is tried with where they decide on a copy."""
ALIKE = 2.0
"""Sources whose counts of experts differ by less than this, χ² per degree of freedom,
are taken for draws from one population: chance alone gives 1."""


def mixed(instance: PlacementInstance, part: TokenPart) -> tuple[Network, Sample]:
    """Return the mixed network and the tokens to look at with it."""
    alike = sources_alike(instance, part)
    chosen = homes_of(instance).domain_H.size > 0
    sample = _sample(instance, part, alike, chosen)
    classes = _classes(instance, part, sample, (alike, chosen))
    sample = sample._replace(class_T=classes.class_S[sample.source_T])
    return network_of(instance, classes), sample


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


def _sample(
    instance: PlacementInstance, part: TokenPart, alike: bool, chosen: bool
) -> Sample:
    """Try every token at several sources or ordinals where they decide on a copy."""
    every = np.arange(part.source_T.size)
    seen = Sample(every, part.source_T, part.ordinal_T, part.source_T)
    if not (has_spare(instance) and alike):
        return seen
    gpus = instance.layout.gpu_count
    tries = min(TRIES, gpus)
    moved = np.repeat(np.arange(tries), part.source_T.size)
    sample = Sample(
        index_T=np.tile(seen.index_T, tries),
        source_T=np.tile(seen.source_T, tries),
        ordinal_T=np.tile(seen.ordinal_T, tries),
        class_T=np.tile(seen.class_T, tries),
    )
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
    if chosen or (instance.selection == "nearest" and has_spare(instance)):
        key_G = served_alike(instance)
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
