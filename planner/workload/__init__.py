"""Models, traces and what they demand of the cluster."""
