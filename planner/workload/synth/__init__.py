"""Synthetic traces: the uniform null, and routing calibrated to real models."""

from planner.workload.synth.calibrated import CalibratedTrace, write_calibrated
from planner.workload.synth.presets import PRESETS
from planner.workload.synth.uniform import UniformTrace, uniform_sets, write_uniform

KINDS = ("uniform", *PRESETS)

__all__ = [
    "KINDS",
    "PRESETS",
    "CalibratedTrace",
    "UniformTrace",
    "uniform_sets",
    "write_calibrated",
    "write_uniform",
]
