"""How the bundled model and its recorded routing are made."""
