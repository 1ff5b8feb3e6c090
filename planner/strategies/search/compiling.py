"""How the search's functions are compiled."""

from functools import partial

from numba import njit

_within = partial(
    njit, cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
inner = _within()
"""For functions that only compiled code calls: without wrappers they compile faster.
Calling one from Python crashes the process."""
inlined = _within(forceinline=True)
"""For those on the way of every move: handing a state over costs more than the work."""
