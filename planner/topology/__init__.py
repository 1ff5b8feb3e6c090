"""Clusters: schema, generators, routes."""
