"""The cut formulation of ``copies`` traffic: docs/formulation.md says it in full."""
