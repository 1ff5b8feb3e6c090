"""Attention over explicit positions: grouped heads, or a shared latent."""
