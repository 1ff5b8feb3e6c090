"""Real routing of a text by the model's own router."""
