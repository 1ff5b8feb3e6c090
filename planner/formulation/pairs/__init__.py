"""The pair formulation: who sends to whom, for graphs that are no hierarchy."""
