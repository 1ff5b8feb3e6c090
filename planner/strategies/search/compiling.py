"""How the search's functions are compiled."""

from numba import njit

inner = njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that only compiled code calls: without wrappers they compile faster.
Calling one from Python crashes the process."""
