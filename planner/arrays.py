"""Array types and the axis letters used in every array name.

====== ==================== ====== ==================================
letter axis                 letter axis
====== ==================== ====== ==================================
L      MoE layers           G      plan GPUs, in EP order
E      logical experts      S      source GPUs (homes of tokens)
P      slots of a layer     J      slots of one GPU (padded with -1)
K      experts per token    A      links (directed edges, then groups)
T      tokens               N      scale-up domains
====== ==================== ====== ==================================

``transfers_LGG[l, s, d]`` is therefore indexed layer, source GPU, target GPU.
Exact integer arrays are ``int64`` where a proven limit allows it and
``object`` (Python integers) where it does not.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]
IdArray: TypeAlias = NDArray[np.int16]
"""Expert ids; -1 where an id is missing."""
FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]
ExactArray: TypeAlias = NDArray[Any]
"""Exact integers: int64, or Python integers in an object array."""
