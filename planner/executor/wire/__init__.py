"""Wires: how rows of tensors get from rank to rank, counted as they move."""
