"""How the search's functions are compiled.

Nothing in the loop allocates, so all but the entries are compiled without numba's
reference counts, which took half the time of a move: whoever needs an array gets it
handed over, and arrays are copied by ``copy_over``.
"""

from functools import partial

from numba import njit

entry = njit(cache=True, nogil=True)
"""For functions that Python calls and that may allocate."""
bare = partial(njit, cache=True, nogil=True, _nrt=False)
"""For functions that Python calls as well and that do not."""
_within = partial(bare, no_cpython_wrapper=True, no_cfunc_wrapper=True)
inner = _within()
"""For functions that only compiled code calls: without wrappers they compile faster.
Calling one from Python crashes the process."""
inlined = _within(forceinline=True)
"""For those on the way of every move: handing a state over costs more than the work."""
