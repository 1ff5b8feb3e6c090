"""In which formats tokens travel and expert weights are held."""
