"""REST service over the planner."""
