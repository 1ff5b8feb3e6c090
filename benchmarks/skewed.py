"""Placement with a free split where homes are skewed and links matter.

``python -m benchmarks.skewed [--seconds 60] [--seeds 0 1 2 3 4]``
"""

import numpy as np

EXPERTS, DOMAINS, SLOTS = 256, 32, 10


def skewed_demand(seed: int):
    rng = np.random.default_rng(seed)
    shared_E = rng.lognormal(0.0, 0.8, EXPERTS)
    own_EN = rng.lognormal(0.0, 1.2, (EXPERTS, DOMAINS))
    return 0.7 * (shared_E / shared_E.sum())[:, None] + 0.3 * own_EN / own_EN.sum(axis=0)
