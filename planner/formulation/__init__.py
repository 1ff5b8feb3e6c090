"""Mathematical formulations: encode an instance, decode a plan."""
