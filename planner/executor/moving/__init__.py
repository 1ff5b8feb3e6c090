"""How the rows of a layer travel to its experts and back, by traffic mode."""
