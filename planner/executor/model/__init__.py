"""A Mixture-of-Experts decoder that is real in every part, at any size.

``config`` and ``tiny`` (dimensions) need no torch; all else does.
"""
