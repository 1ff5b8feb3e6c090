"""When ranks computed and when rows travelled; needs no torch."""
