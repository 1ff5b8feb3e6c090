"""``balance``: closed forms and special models for the load of experts alone."""
