"""A lower bound where transfers are deduplicated and no expert has two copies.

``docs/formulation.md`` (Deduplicated traffic) derives it; ``problem`` gathers one
layer, ``solve`` finds multipliers, ``closed`` says what they prove.
"""
