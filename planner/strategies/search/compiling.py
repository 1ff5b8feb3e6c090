"""How functions that only compiled code calls are compiled.

Nothing in the search's loop allocates, so it is compiled without numba's reference
counts, which took half the time of a move: whoever needs an array gets it handed over,
and arrays are copied by ``copy_over``.
"""

from functools import partial

from numba import njit

entry = njit(cache=True, nogil=True)
"""For functions that Python calls and that may allocate."""
bare = partial(njit, cache=True, nogil=True, _nrt=False)
"""For functions that Python calls as well and that allocate nothing."""
inner = njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that only compiled code calls: without wrappers they compile faster.
Calling one from Python crashes the process."""
lean = bare(no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""The same for functions that allocate nothing."""
inlined = bare(no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
"""For those on the way of every move: handing a state over costs more than the work."""
