"""The command line: parse, call the pipeline, print (design §8)."""

from planner.cli.main import main

__all__ = ["main"]
