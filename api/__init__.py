"""The REST service over the planner; started by ``planner serve``."""
