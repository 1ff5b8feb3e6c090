"""The same verdict for every reader: terminal, Markdown, JUnit, GitHub, CSV."""
