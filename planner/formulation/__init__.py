"""Optimization models: what a strategy solves, never how a plan is judged."""
