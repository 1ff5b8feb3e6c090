"""The version, read by the build and shown by ``planner --version``."""

__version__ = "0.1.0"
