"""How tokens choose experts: scores, choice, balancing, capacity."""
