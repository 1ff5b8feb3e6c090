"""Benchmark cases, their baseline and the gate on placement quality."""
